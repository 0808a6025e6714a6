// Google's OAuth endpoints in the shapes of its answers: https://developers.google.com/identity/protocols/oauth2
// (native-app, limited-input-device, service-account), with the peculiarities that matter for mail. A refresh token comes
// only with access_type=offline and only with a consent; it is not rotated; an app in testing says how soon it ends; the
// device flow refuses the mail scope; desktop clients have a secret and must send it.

import { checkServiceAccount } from './assertions.mjs';
import { Issued, consentPage, html, isVerified, json, random, redirect, words } from './vendor.mjs';

const ISSUER = 'https://accounts.google.com';
const TOKEN_URL = 'https://oauth2.googleapis.com/token';
const LIFE_SECONDS = 3599;
const TESTING_LIFE_SECONDS = 604799;
/** Of the device flow, those that mail has nothing to do with (limited-input-device, "Allowed scopes"). */
const DEVICE_SCOPES = ['openid', 'email', 'profile', 'https://www.googleapis.com/auth/drive.appdata', 'https://www.googleapis.com/auth/drive.file', 'https://www.googleapis.com/auth/youtube', 'https://www.googleapis.com/auth/youtube.readonly'];

/** Refusals of the token endpoint by what they are known as. */
const REFUSALS = {
  expired_or_revoked: [400, { error: 'invalid_grant', error_description: 'Token has been expired or revoked.' }],
  bad_request: [400, { error: 'invalid_grant', error_description: 'Bad Request' }],
  malformed_code: [400, { error: 'invalid_grant', error_description: 'Malformed auth code.' }],
  invalid_rapt: [400, { error: 'invalid_grant', error_description: 'reauth related error (invalid_rapt)', error_uri: 'https://support.google.com/a/answer/9368756', error_subtype: 'invalid_rapt' }],
  rapt_required: [400, { error: 'invalid_grant', error_description: 'reauth related error (rapt_required)', error_uri: 'https://support.google.com/a/answer/9368756', error_subtype: 'rapt_required' }],
  admin_policy_enforced: [400, { error: 'admin_policy_enforced', error_description: 'Access to your account data is restricted by policies within your organization.' }],
  unauthorized_client: [401, { error: 'unauthorized_client', error_description: 'Unauthorized' }],
  unknown_client: [401, { error: 'invalid_client', error_description: 'The OAuth client was not found.' }],
  wrong_secret: [401, { error: 'invalid_client', error_description: 'Unauthorized' }],
  missing_secret: [400, { error: 'invalid_request', error_description: 'client_secret is missing.' }],
  disabled_client: [401, { error: 'disabled_client', error_description: 'The OAuth client was disabled.' }],
  deleted_client: [401, { error: 'deleted_client', error_description: 'The OAuth client was deleted.' }],
  redirect_uri_mismatch: [400, { error: 'redirect_uri_mismatch', error_description: 'Bad Request' }],
  missing_verifier: [400, { error: 'invalid_grant', error_description: 'Missing code verifier.' }],
  wrong_verifier: [400, { error: 'invalid_grant', error_description: 'Invalid code verifier.' }],
  unsupported_grant_type: [400, { error: 'unsupported_grant_type', error_description: 'Invalid grant_type: ' }],
  rate_limited: [403, { error: 'rate_limit_exceeded', error_description: 'Rate Limit Exceeded' }],
  internal_failure: [500, { error: 'internal_failure', error_description: 'Backend Error' }],
};

export class Google {
  static hosts = ['accounts.google.com', 'oauth2.googleapis.com', 'www.googleapis.com'];

  issued = new Issued();
  #app;

  /** @param app `{ client_id, client_secret, testing, service_account }` */
  constructor(app) {
    this.#app = app;
  }

  refusal(name) {
    if (!(name in REFUSALS)) throw new Error(`no such refusal of Google's: ${name}`);
    return json(...REFUSALS[name]);
  }

  /** The answer to a request, or undefined where Google has no such path. */
  answer({ method, path, query, form }) {
    switch (`${method} ${path}`) {
      case 'GET /o/oauth2/v2/auth': return this.#authorize(query);
      case 'POST /o/oauth2/v2/auth': return this.#consent(query, form);
      case 'POST /token': return this.#token(Object.fromEntries(form));
      case 'POST /revoke': return this.#revoke(form.get('token') ?? query.get('token'));
      case 'POST /device/code': return this.#deviceCode(Object.fromEntries(form));
      case 'GET /.well-known/openid-configuration': return json(200, this.#discovery());
      case 'GET /oauth2/v3/certs': return json(200, this.issued.jwks());
      default: return undefined;
    }
  }

  /** What consent and exchange would have led to. */
  mint(user, scope) {
    const asked = { client_id: this.#app.client_id, scope, access_type: 'offline', prompt: 'consent' };
    return this.#tokens({ user, scope, asked }, true);
  }

  #authorize(query) {
    const asked = Object.fromEntries(query);
    const wrong = this.#wrongWith(asked);
    // Google tells its user, not the application, when the request itself is at fault.
    if (wrong) return html(400, `<!DOCTYPE html><title>Error 400: ${wrong}</title><h1>Access blocked</h1><p>Error 400: ${wrong}</p>`);
    return consentPage('Sign in with Google', asked);
  }

  #wrongWith({ client_id: client, response_type: type, redirect_uri: uri, scope, code_challenge_method: method }) {
    if (client !== this.#app.client_id) return 'invalid_client';
    if (type !== 'code' || !scope || (method && !['S256', 'plain'].includes(method))) return 'invalid_request';
    const url = URL.canParse(uri) ? new URL(uri) : undefined;
    const isLoopback = url?.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname);
    return isLoopback || this.#app.redirect_uris.includes(uri) ? undefined : 'redirect_uri_mismatch';
  }

  #consent(query, form) {
    const asked = Object.fromEntries(query);
    if (form.get('answer') !== 'allow') return redirect(asked.redirect_uri, { error: 'access_denied', state: asked.state });
    const code = `4/0A${random(50)}`;
    const scope = form.getAll('scope').join(' ');
    this.issued.codes.set(code, { user: form.get('user').trim(), scope, asked });
    const told = { state: asked.state, iss: ISSUER, code, scope, authuser: '0', prompt: asked.prompt ?? 'none' };
    return redirect(asked.redirect_uri, told);
  }

  #token(form) {
    if (form.grant_type === 'urn:ietf:params:oauth:grant-type:jwt-bearer') return this.#standIn(form.assertion);
    if (form.client_id !== this.#app.client_id) return this.refusal('unknown_client');
    if (!form.client_secret) return this.refusal('missing_secret');
    if (form.client_secret !== this.#app.client_secret) return this.refusal('wrong_secret');
    if (form.grant_type === 'authorization_code') return this.#exchange(form);
    if (form.grant_type === 'refresh_token') return this.#refresh(form);
    if (form.grant_type === 'urn:ietf:params:oauth:grant-type:device_code') return json(428, { error: 'authorization_pending', error_description: 'Precondition Required' });
    return this.refusal('unsupported_grant_type');
  }

  #exchange(form) {
    const grant = this.issued.codes.get(form.code);
    if (!grant) return this.refusal('malformed_code');
    if (form.redirect_uri !== grant.asked.redirect_uri) return this.refusal('redirect_uri_mismatch');
    if (grant.asked.code_challenge && !form.code_verifier) return this.refusal('missing_verifier');
    if (!isVerified(grant.asked, form.code_verifier)) return this.refusal('wrong_verifier');
    this.issued.codes.delete(form.code);
    const { access_type: access, prompt } = grant.asked;
    return json(200, this.#tokens(grant, access === 'offline' && prompt === 'consent'));
  }

  #refresh(form) {
    const grant = this.issued.refreshTokens.get(form.refresh_token);
    return grant ? json(200, this.#tokens(grant, false)) : this.refusal('expired_or_revoked');
  }

  #standIn(assertion) {
    const verdict = checkServiceAccount(assertion, this.#app.service_account, TOKEN_URL);
    if (verdict.error) return json(verdict.error === 'unauthorized_client' ? 401 : 400, verdict);
    // Those of a service account are four times as long as a user's.
    return json(200, { access_token: this.#accessToken(verdict.user, 760), expires_in: LIFE_SECONDS, token_type: 'Bearer' });
  }

  #tokens({ user, scope, asked }, isOffline) {
    const answer = { access_token: this.#accessToken(user, 160), expires_in: LIFE_SECONDS };
    if (isOffline) {
      answer.refresh_token = `1//0${random(75)}`;
      this.issued.refreshTokens.set(answer.refresh_token, { user, scope, asked });
    }
    Object.assign(answer, { scope, token_type: 'Bearer' });
    if (words(scope).includes('openid')) answer.id_token = this.#identity(user, scope, asked);
    if (isOffline && this.#app.testing) answer.refresh_token_expires_in = TESTING_LIFE_SECONDS;
    return answer;
  }

  #accessToken(user, bytes) {
    const token = `ya29.a0A${random(bytes)}`;
    this.issued.accessTokens.set(token, { user, exp: Math.floor(Date.now() / 1000) + LIFE_SECONDS });
    return token;
  }

  #identity(user, scope, asked) {
    const now = Math.floor(Date.now() / 1000);
    const { client_id: client, nonce } = asked;
    const email = words(scope).some((each) => ['email', 'https://www.googleapis.com/auth/userinfo.email'].includes(each))
      ? { email: user, email_verified: true } : {};
    const sub = BigInt(`0x${Buffer.from(user).toString('hex')}`).toString().slice(0, 21);
    return this.issued.jwt({ iss: ISSUER, azp: client, aud: client, sub, ...email, nonce, iat: now, exp: now + 3600 });
  }

  #revoke(token) {
    const entry = this.issued.refreshTokens.get(token) ?? this.issued.accessTokens.get(token);
    if (!entry) return json(400, { error: 'invalid_token', error_description: 'Token expired or revoked' });
    this.issued.revoke(entry.user);
    return json(200, {});
  }

  #deviceCode({ client_id: client, scope }) {
    if (client !== this.#app.client_id) return this.refusal('unknown_client');
    const refused = words(scope).find((each) => !DEVICE_SCOPES.includes(each));
    if (refused) return json(400, { error: 'invalid_scope', error_description: `Invalid device flow scope: ${refused}` });
    return json(200, { device_code: `AH-1${random(60)}`, user_code: 'GQVQ-JKEC', expires_in: 1800, interval: 5, verification_url: 'https://www.google.com/device' });
  }

  #discovery() {
    return {
      issuer: ISSUER,
      authorization_endpoint: `${ISSUER}/o/oauth2/v2/auth`,
      device_authorization_endpoint: 'https://oauth2.googleapis.com/device/code',
      token_endpoint: TOKEN_URL,
      revocation_endpoint: 'https://oauth2.googleapis.com/revoke',
      jwks_uri: 'https://www.googleapis.com/oauth2/v3/certs',
      response_types_supported: ['code', 'token', 'id_token'],
      id_token_signing_alg_values_supported: ['RS256'],
      code_challenge_methods_supported: ['plain', 'S256'],
    };
  }
}
