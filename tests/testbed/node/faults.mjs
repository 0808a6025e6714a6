// What the token endpoint can be told to do wrong. A fault applies to the next N token requests, or
// to all until cleared; and to those of one user, or to everybody's.
//
// Three kinds: an answer given instead of carrying the request out (CANNED), no answer at all
// (SILENT), and a request that is carried out but answered in a disturbed way (DISTURBED).

const json = (status, body, headers = {}) => ({
  status,
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify(body),
});
const html = (status) => ({
  status,
  headers: { 'content-type': 'text/html; charset=utf-8' },
  body: '<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Something went wrong</h1></body></html>',
});

const CANNED = {
  invalid_grant: () => json(400, { error: 'invalid_grant', error_description: 'grant request is invalid' }),
  temporarily_unavailable: () => json(400, { error: 'temporarily_unavailable', error_description: 'try again later' }),
  invalid_client: () => json(401, { error: 'invalid_client', error_description: 'client authentication failed' }),
  slow_down: () => json(400, { error: 'slow_down', error_description: 'you are polling too quickly' }),
  too_many_requests: (fault) => json(429, { error: 'slow_down' }, { 'retry-after': String(fault.retry_after ?? 1) }),
  server_error: () => json(500, { error: 'server_error', error_description: 'oops! something went wrong' }),
  html_200: () => html(200),
  html_502: () => html(502),
  error_in_200: (fault) => json(200, { error: fault.error ?? 'invalid_grant', error_description: 'said with status 200' }),
  // A JSON object that would be a good answer but for its size: just above 64 KiB.
  huge_body: () => json(200, { access_token: 'huge', token_type: 'Bearer', expires_in: 3600, padding: 'x'.repeat(65 * 1024) }),
  redirect: (fault) => ({ status: 302, headers: { location: fault.location ?? '/elsewhere' }, body: '' }),
  // Any error a provider may think of, word for word.
  custom: (fault) => json(fault.status ?? 400, fault.body ?? {}),
};

const SILENT = new Set(['hang', 'drop']);

const DISTURBED = {
  expires_in_string: (body) => ({ ...body, expires_in: String(body.expires_in) }),
  expires_in_absent: ({ expires_in: _, ...rest }) => rest,
  refresh_token_absent: ({ refresh_token: _, ...rest }) => rest,
  slow: (body) => body,
  lost: () => undefined,
};

export class Faults {
  #active = [];
  #hanging = new Map();

  /** Switches a fault on: `{kind, user?, count?, …}`; for one user or all, and without a count until cleared. */
  add(fault) {
    if (!(fault.kind in CANNED || fault.kind in DISTURBED || SILENT.has(fault.kind))) {
      throw new Error(`no such fault: ${fault.kind}`);
    }
    this.#active.push({ ...fault, left: fault.count ?? Infinity });
  }

  /** Switches a user's own faults off, or all; requests that they left hanging are cut. */
  clear(user) {
    const goes = (fault) => user === undefined || fault.user === user;
    this.#active = this.#active.filter((fault) => !goes(fault));
    for (const [socket, fault] of this.#hanging) if (goes(fault)) socket.destroy();
  }

  /** The fault that a request of this user meets, or undefined; counts it as used. */
  take(user) {
    const fault = this.#active.find((each) => each.left > 0 && (each.user ?? user) === user);
    if (fault) fault.left -= 1;
    return fault;
  }

  /** Answers the request in the fault's way where that needs no provider. True if it was dealt with. */
  answer(fault, req, res) {
    if (fault.kind === 'hang') {
      this.#hanging.set(req.socket, fault);
      req.socket.once('close', () => this.#hanging.delete(req.socket));
      return true;
    }
    if (fault.kind === 'drop') {
      req.socket.destroy();
      return true;
    }
    if (fault.kind in CANNED) {
      const { status, headers, body } = CANNED[fault.kind](fault);
      res.writeHead(status, headers).end(body);
      return true;
    }
    return false;
  }

  /** Disturbs the answer to a request that was carried out. */
  async disturb(fault, ctx) {
    if (fault.kind === 'slow') await new Promise((done) => { setTimeout(done, fault.milliseconds ?? 1000); });
    if (fault.kind === 'lost') {
      ctx.respond = false;
      ctx.req.socket.destroy();
      return;
    }
    if (ctx.status === 200 && ctx.body) ctx.body = DISTURBED[fault.kind](ctx.body);
  }
}
