// The assertion of a service account with domain-wide delegation: a JWT by which an application that
// was trusted for a whole domain asks for a token of one of its users (RFC 7523 §2.1). Checked as
// Google checks it, and refused in Google's words.

import { createPublicKey, verify } from 'node:crypto';

const LIFE_SECONDS_MAX = 3600;
const CLOCK_SKEW_SECONDS = 60;

/**
 * Whom the assertion is about and for which scope: `{ user, scope }`, or `{ error, error_description }`.
 *
 * @param assertion the JWT
 * @param account `{ email, public_key (PEM), scopes (delegated), domain? (whose users it may stand in for) }`
 * @param audience the token endpoint's URL
 */
export function checkServiceAccount(assertion, account, audience) {
  const refused = (error, text) => ({ error, error_description: text });
  const parts = decode(assertion);
  if (!parts) return refused('invalid_request', 'Bad Request');
  const { header, claims, signed, signature } = parts;
  if (!account || claims.iss !== account.email) return refused('invalid_grant', 'Invalid grant: account not found');
  const isSigned = header.alg === 'RS256' && verify('RSA-SHA256', signed, createPublicKey(account.public_key), signature);
  if (!isSigned) return refused('invalid_grant', 'Invalid JWT Signature.');
  if (claims.aud !== audience) return refused('invalid_grant', 'Invalid JWT: Failed audience check. The right audience is ' + audience);
  const now = Math.floor(Date.now() / 1000);
  const isInTime = Number.isInteger(claims.iat) && Number.isInteger(claims.exp)
    && claims.iat <= now + CLOCK_SKEW_SECONDS && claims.exp > now && claims.exp <= claims.iat + LIFE_SECONDS_MAX;
  if (!isInTime) {
    return refused('invalid_grant', 'Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable '
      + 'timeframe. Check your iat and exp values in the JWT claim.');
  }
  const scopes = String(claims.scope ?? '').split(' ').filter(Boolean);
  if (!scopes.length) return refused('invalid_scope', 'Invalid OAuth scope or ID token audience provided.');
  if (!scopes.every((scope) => account.scopes.includes(scope))) {
    return refused('unauthorized_client', 'Client is unauthorized to retrieve access tokens using this method, or '
      + 'client not authorized for any of the scopes requested.');
  }
  const user = claims.sub ?? account.email;
  if (account.domain && !user.endsWith(`@${account.domain}`)) return refused('invalid_grant', 'Invalid email or User ID');
  return { user, scope: scopes.join(' ') };
}

/** The parts of a compact JWS; undefined if it is none. */
export function decode(jwt) {
  const [header, claims, signature, ...more] = String(jwt ?? '').split('.');
  if (signature === undefined || more.length) return undefined;
  try {
    return {
      header: json(header),
      claims: json(claims),
      signed: Buffer.from(`${header}.${claims}`),
      signature: Buffer.from(signature, 'base64url'),
    };
  } catch {
    return undefined;
  }
}

const json = (part) => {
  const value = JSON.parse(Buffer.from(part, 'base64url').toString());
  if (value === null || typeof value !== 'object') throw new Error('not an object');
  return value;
};
