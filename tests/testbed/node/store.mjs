// The provider's memory: one plain Map, because oidc-provider's own memory adapter forgets
// everything beyond 1,000 entries and the load tests hold more grants than that.
//
// It also decides what "used" means for a rotated refresh token. Marking it as used is what makes
// oidc-provider revoke the whole grant when the token comes a second time, so reuse detection is
// switched off by not marking.

export class Store {
  #entries = new Map();
  #reuseIsDetected;

  /** @param {() => boolean} reuseIsDetected asked each time a refresh token is rotated */
  constructor(reuseIsDetected) {
    this.#reuseIsDetected = reuseIsDetected;
  }

  /** The adapter of one model, in the shape that oidc-provider asks for. */
  adapter(model) {
    const entries = this.#entries;
    const key = (id) => `${model}:${id}`;
    const first = (wanted) => {
      for (const [name, payload] of entries) {
        if (name.startsWith(`${model}:`) && wanted(payload)) return payload;
      }
      return undefined;
    };
    return {
      upsert: async (id, payload) => { entries.set(key(id), payload); },
      find: async (id) => entries.get(key(id)),
      findByUid: async (uid) => first((payload) => payload.uid === uid),
      findByUserCode: async (userCode) => first((payload) => payload.userCode === userCode),
      destroy: async (id) => { entries.delete(key(id)); },
      consume: async (id) => {
        const payload = entries.get(key(id));
        if (payload && this.#reuseIsDetected()) payload.consumed = Math.floor(Date.now() / 1000);
      },
      revokeByGrantId: async (grantId) => {
        this.#remove((name, payload) => name.startsWith(`${model}:`) && payload.grantId === grantId);
      },
    };
  }

  /**
   * Who is behind a token request: the user whose refresh token, code or device code it brings, also when that is used
   * up, or whose name; undefined where none of these was ever issued or it was revoked.
   */
  userBehind({ refresh_token: refreshToken, code, device_code: deviceCode, username }) {
    const entry = this.#entries.get(`RefreshToken:${refreshToken}`)
      ?? this.#entries.get(`AuthorizationCode:${code}`)
      ?? this.#entries.get(`DeviceCode:${deviceCode}`);
    return entry ? entry.accountId : username;
  }

  /** Removes one access token. Says how many there were: 0 or 1. */
  revokeAccessToken(value) {
    return this.#remove((name) => name === `AccessToken:${value}`);
  }

  /** Removes all access tokens of a user; the grant and its refresh token stay good. */
  revokeAccessTokensOf(user) {
    return this.#remove((name, payload) => name.startsWith('AccessToken:') && payload.accountId === user);
  }

  /** Removes all that a user ever granted: grants, refresh tokens, access tokens. */
  revokeGrantsOf(user) {
    return this.#remove((_, payload) => payload.accountId === user);
  }

  #remove(doomed) {
    let removed = 0;
    for (const [name, payload] of this.#entries) {
      if (doomed(name, payload)) {
        this.#entries.delete(name);
        removed += 1;
      }
    }
    return removed;
  }
}
