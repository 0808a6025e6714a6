// What the recorded Google and the recorded Microsoft have in common: the page on which a user agrees,
// PKCE, signed identities, and the tokens that are out. What their answers look like is their own matter.

import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto';

export const json = (status, body) => ({ status, headers: { 'content-type': 'application/json; charset=utf-8' }, body: JSON.stringify(body) });
export const html = (status, body) => ({ status, headers: { 'content-type': 'text/html; charset=utf-8' }, body });
export const redirect = (uri, params) => {
  const location = new URL(uri);
  for (const [name, value] of Object.entries(params)) if (value !== undefined) location.searchParams.set(name, value);
  return { status: 302, headers: { location: location.href }, body: '' };
};
export const random = (bytes) => randomBytes(bytes).toString('base64url');
export const words = (text) => (text ?? '').split(' ').filter(Boolean);

/** The page of the authorization endpoint: who, and which scopes. */
export function consentPage(title, { login_hint: hint, scope }) {
  const boxes = words(scope).map((each) => `<p><label><input type="checkbox" name="scope" value="${escape(each)}" checked> ${escape(each)}</label></p>`);
  return html(200, `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${title}</title></head>
<body><main><h1>${title}</h1>
<form method="post">
<p><label>User name <input name="user" value="${escape(hint)}" required></label></p>
${boxes.join('\n')}
<button name="answer" value="allow">Allow</button>
<button name="answer" value="deny">Deny</button>
</form></main></body></html>
`);
}

const escape = (text) => String(text ?? '').replace(/[&<>"']/g, (each) => `&#${each.charCodeAt(0)};`);

/** Whether the verifier is that of the challenge; true as well where none was sent with the authorization request. */
export function isVerified({ code_challenge: challenge, code_challenge_method: method }, verifier) {
  if (!challenge) return true;
  if (!verifier) return false;
  return challenge === (method === 'S256' ? createHash('sha256').update(verifier).digest('base64url') : verifier);
}

/** Codes and tokens that are out, and the key by which identities are signed. */
export class Issued {
  codes = new Map(); // what was asked for, and by whom
  refreshTokens = new Map();
  accessTokens = new Map();
  #key = generateKeyPairSync('rsa', { modulusLength: 2048 });
  #kid = random(20);

  jwks() {
    return { keys: [{ ...this.#key.publicKey.export({ format: 'jwk' }), kid: this.#kid, use: 'sig', alg: 'RS256' }] };
  }

  jwt(claims) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ typ: 'JWT', alg: 'RS256', kid: this.#kid })}.${part(claims)}`;
    return `${signed}.${sign('RSA-SHA256', Buffer.from(signed), this.#key.privateKey).toString('base64url')}`;
  }

  /** For RFC 7662: whose access token it is. */
  introspect(token) {
    const entry = this.accessTokens.get(token);
    if (!entry || entry.exp <= Date.now() / 1000) return { active: false };
    // What Dovecot asks for is called "mail" whatever the vendor calls it.
    return { active: true, username: entry.user, scope: 'mail', exp: entry.exp };
  }

  /** All that this user granted is gone. */
  revoke(user) {
    for (const tokens of [this.refreshTokens, this.accessTokens]) {
      for (const [token, entry] of tokens) if (entry.user === user) tokens.delete(token);
    }
  }
}
