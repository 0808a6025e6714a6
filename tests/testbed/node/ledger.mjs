// What an endpoint has seen: every request with its parameters, secrets included, because the tests
// assert on them, and the counts by which "one refresh for 200 logins" is shown.

const HEADERS = ['authorization', 'content-type', 'accept', 'user-agent'];

export class Ledger {
  #requests = [];
  #inFlight = new Map();
  #inFlightMax = new Map();

  /** Notes a request that has come in; give the entry to `end` when it is over. */
  begin(req, params, user, fault) {
    const entry = {
      time: new Date().toISOString(),
      method: req.method,
      path: req.url,
      headers: Object.fromEntries(HEADERS.filter((name) => name in req.headers).map((name) => [name, req.headers[name]])),
      params,
      user: user ?? null,
      fault: fault?.kind ?? null,
      status: null,
      carried_out: false,
    };
    this.#requests.push(entry);
    for (const who of [entry.user, undefined]) {
      const now = (this.#inFlight.get(who) ?? 0) + 1;
      this.#inFlight.set(who, now);
      this.#inFlightMax.set(who, Math.max(now, this.#inFlightMax.get(who) ?? 0));
    }
    return entry;
  }

  /** Notes that the request was answered or its connection is gone. */
  end(entry, status) {
    entry.status = status;
    for (const who of [entry.user, undefined]) this.#inFlight.set(who, this.#inFlight.get(who) - 1);
  }

  requests(user) {
    return this.#requests.filter((entry) => user === undefined || entry.user === user);
  }

  /** Counts for one user, or for all. */
  counters(user) {
    const requests = this.requests(user);
    const byGrantType = {};
    for (const { params } of requests) {
      const type = params.grant_type ?? '';
      byGrantType[type] = (byGrantType[type] ?? 0) + 1;
    }
    return {
      requests: requests.length,
      by_grant_type: byGrantType,
      refreshes: requests.filter((entry) => entry.carried_out && entry.params.grant_type === 'refresh_token').length,
      in_flight: this.#inFlight.get(user) ?? 0,
      in_flight_max: this.#inFlightMax.get(user) ?? 0,
    };
  }
}
