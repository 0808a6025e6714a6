// How often a device asks whether its user has agreed yet. oidc-provider does not mind; RFC 8628 §3.5
// has the server say `slow_down` to one that asks sooner than it was told, and each time means five
// seconds more from then on.

const SLOWER_SECONDS = 5;
/** A timer may be early by less than this. */
const TOLERANCE_MILLISECONDS = 20;

export class Polls {
  #codes = new Map();

  /** Notes a device code that was handed out, and the interval that was told with it. */
  begin(deviceCode, intervalSeconds) {
    this.#codes.set(deviceCode, { interval: intervalSeconds * 1000, last: undefined });
  }

  /** Notes that this code is asked for now. True if that is too soon. */
  isTooSoon(deviceCode) {
    const poll = this.#codes.get(deviceCode);
    if (!poll) return false;
    const now = performance.now();
    const isTooSoon = poll.last !== undefined && now - poll.last < poll.interval - TOLERANCE_MILLISECONDS;
    poll.last = now;
    if (isTooSoon) this.slowDown(deviceCode);
    return isTooSoon;
  }

  /** From here on this code may be asked for less often. */
  slowDown(deviceCode) {
    const poll = this.#codes.get(deviceCode);
    if (poll) poll.interval += SLOWER_SECONDS * 1000;
  }
}
