// Microsoft's OAuth endpoints, version 2.0, in the shapes of its answers: https://learn.microsoft.com/entra/identity-platform/
// (v2-oauth2-auth-code-flow, -device-code, -client-creds-grant-flow, certificate-credentials). One resource per token request;
// every refresh gives another refresh token and the old one stays good; offline_access is never named in the answer;
// a public client must not send a secret and a confidential one must; application tokens are for `…/.default` of one tenant.

import { randomUUID, createPublicKey, createHash, X509Certificate, verify, constants } from 'node:crypto';
import { AADSTS } from './aadsts.mjs';
import { decode } from './assertions.mjs';
import { Issued, consentPage, html, isVerified, json, random, redirect, words } from './vendor.mjs';

const LIFE_SECONDS = 4799;
const APP_LIFE_SECONDS = 3599;
const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';
const CERTIFICATE_ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const TENANTLESS = ['common', 'organizations', 'consumers'];
/** Whose Dovecot is told an application's own token is: see `oauth2-apps.conf.ext`. */
const ANY_MAILBOX = 'any';
const IDENTITY_SCOPES = ['openid', 'profile', 'email', 'offline_access'];

export class Microsoft {
  static hosts = ['login.microsoftonline.com', 'login.microsoftonline.us', 'login.partner.microsoftonline.cn', 'login.chinacloudapi.cn'];

  issued = new Issued();
  #app;
  #devices = new Map();

  /** @param app `{ client_id, client_secret?, certificate? (PEM), redirect_uris, device_interval }`; public without either */
  constructor(app) {
    this.#app = app;
  }

  /** Refuses with a number; words of its text may be given. */
  refusal(number, given = {}) {
    if (!(number in AADSTS)) throw new Error(`no such refusal of Microsoft's: AADSTS${number}`);
    const [status, error, text, suberror] = AADSTS[number];
    const said = { APP: this.#app.client_id, TENANT: 'contoso.onmicrosoft.com', ...given };
    const filled = Object.entries(said).reduce((so, [word, value]) => so.replaceAll(word, value), text);
    return json(status, body(error, number, filled, suberror));
  }

  /** The answer to a request, or undefined where Microsoft has no such path. */
  answer({ host, method, path, query, form }) {
    const [, tenant, endpoint] = /^\/([^/]+)\/(.+)$/.exec(path) ?? [];
    switch (`${method} ${endpoint}`) {
      case 'GET oauth2/v2.0/authorize': return this.#authorize(query);
      case 'POST oauth2/v2.0/authorize': return this.#consent(query, form);
      case 'POST oauth2/v2.0/token': return this.#token(host, tenant, Object.fromEntries(form));
      case 'POST oauth2/v2.0/devicecode': return this.#deviceCode(tenant, Object.fromEntries(form));
      case 'GET v2.0/.well-known/openid-configuration': return json(200, discovery(host, tenant));
      case 'GET discovery/v2.0/keys': return json(200, this.issued.jwks());
      default: return undefined;
    }
  }

  /** What consent and exchange would have led to. */
  mint(user, scope) {
    return this.#tokens({ user, scope, asked: { client_id: this.#app.client_id, scope } }, scope);
  }

  /** What the user of a device says who has typed the code in: `allow`, `decline`, or that it took too long: `expire`. */
  decide(userCode, verdict, user) {
    const device = [...this.#devices.values()].find((each) => each.userCode === userCode);
    if (!device) throw new Error(`no such code: ${userCode}`);
    Object.assign(device, { verdict, user });
  }

  #authorize(query) {
    const asked = Object.fromEntries(query);
    const wrong = this.#wrongWith(asked);
    // Microsoft tells its user, not the application, when the request itself is at fault.
    if (wrong) return html(400, `<!DOCTYPE html><title>Sign in to your account</title><h1>Sorry, but we’re having trouble signing you in.</h1><p>${wrong}</p>`);
    return consentPage('Sign in to your account', asked);
  }

  #wrongWith({ client_id: client, response_type: type, redirect_uri: uri, scope }) {
    if (client !== this.#app.client_id) return 'AADSTS700016: Application was not found in the directory.';
    if (type !== 'code') return "AADSTS900144: The request body must contain the following parameter: 'response_type'.";
    if (!scope) return "AADSTS900144: The request body must contain the following parameter: 'scope'.";
    const url = URL.canParse(uri) ? new URL(uri) : undefined;
    // Of loopback addresses it is `localhost` that the portal takes, and the port is then ignored.
    const isLoopback = url?.protocol === 'http:' && url.hostname === 'localhost';
    const isKnown = isLoopback || this.#app.redirect_uris.includes(uri);
    return isKnown ? undefined : "AADSTS50011: The redirect URI specified in the request does not match the redirect URIs configured for the application.";
  }

  #consent(query, form) {
    const asked = Object.fromEntries(query);
    const { redirect_uri: uri, state } = asked;
    if (form.get('answer') !== 'allow') {
      const denied = body('access_denied', 65004, AADSTS[65004][2]);
      return redirect(uri, { error: 'access_denied', error_subcode: 'cancel', error_description: denied.error_description, state });
    }
    const code = `1.AX${random(500)}`;
    this.issued.codes.set(code, { user: form.get('user').trim(), scope: form.getAll('scope').join(' '), asked });
    return redirect(uri, { code, state, session_state: randomUUID() });
  }

  #token(host, tenant, form) {
    if (!form.grant_type) return this.refusal(90014, { FIELD: 'grant_type' });
    if (form.client_id !== this.#app.client_id) return this.refusal(700016);
    const unproven = this.#unproven(host, tenant, form);
    if (unproven) return this.refusal(unproven);
    switch (form.grant_type) {
      case 'authorization_code': return this.#exchange(form);
      case 'refresh_token': return this.#refresh(form);
      case DEVICE_CODE: return this.#poll(form);
      case 'client_credentials': return this.#forItself(tenant, form);
      default: return this.refusal(70003);
    }
  }

  /** The number of what is wrong with the client's proof of who it is. */
  #unproven(host, tenant, form) {
    const { client_secret: secret, certificate } = this.#app;
    const brings = form.client_secret !== undefined || form.client_assertion !== undefined;
    if (!secret && !certificate) return brings ? 700025 : undefined;
    if (!brings) return 7000218;
    if (form.client_secret !== undefined) return form.client_secret === secret ? undefined : 7000215;
    const audience = `https://${host}/${tenant}/oauth2/v2.0/token`;
    const isSigned = form.client_assertion_type === CERTIFICATE_ASSERTION && isAssertionOf(this.#app, form.client_assertion, audience);
    return isSigned ? undefined : 700027;
  }

  #exchange(form) {
    const grant = this.issued.codes.get(form.code);
    if (!grant) return this.refusal(70000);
    if (grant.isRedeemed) return this.refusal(54005);
    if (form.redirect_uri !== grant.asked.redirect_uri) return this.refusal(500112, { REDIRECT: form.redirect_uri });
    if (!isVerified(grant.asked, form.code_verifier)) return this.refusal(501481);
    const scope = form.scope ?? grant.scope;
    const wrong = this.#wrongScope(scope);
    if (wrong) return wrong;
    grant.isRedeemed = true;
    return json(200, this.#tokens(grant, scope));
  }

  #refresh(form) {
    const grant = this.issued.refreshTokens.get(form.refresh_token);
    if (!grant) return this.refusal(70000);
    const scope = form.scope ?? grant.scope;
    return this.#wrongScope(scope) ?? json(200, this.#tokens(grant, scope));
  }

  #wrongScope(scope) {
    const resources = new Set(words(scope).filter((each) => !IDENTITY_SCOPES.includes(each)).map(resourceOf));
    return resources.size > 1 ? this.refusal(28000, { SCOPE: scope }) : undefined;
  }

  #forItself(tenant, { scope }) {
    if (TENANTLESS.includes(tenant)) return this.refusal(50059);
    if (!/^https:\/\/[^ ]+\/\.default$/.test(scope ?? '')) return this.refusal(1002012, { SCOPE: scope ?? '' });
    const token = this.#accessToken(null, APP_LIFE_SECONDS);
    return json(200, { token_type: 'Bearer', expires_in: APP_LIFE_SECONDS, ext_expires_in: APP_LIFE_SECONDS, access_token: token });
  }

  #deviceCode(tenant, { client_id: client, scope }) {
    if (client !== this.#app.client_id) return this.refusal(700016);
    if (!scope) return this.refusal(90014, { FIELD: 'scope' });
    const wrong = this.#wrongScope(scope);
    if (wrong) return wrong;
    const deviceCode = `D${random(150)}`;
    const userCode = random(30).replace(/[^A-Za-z]/g, '').slice(0, 9).toUpperCase();
    this.#devices.set(deviceCode, { userCode, scope, asked: { client_id: client, scope } });
    const uri = tenant === 'consumers' ? 'https://www.microsoft.com/link' : 'https://login.microsoft.com/device';
    return json(200, {
      user_code: userCode,
      device_code: deviceCode,
      verification_uri: uri,
      expires_in: 900,
      interval: this.#app.device_interval,
      message: `To sign in, use a web browser to open the page ${uri} and enter the code ${userCode} to authenticate.`,
    });
  }

  #poll({ device_code: deviceCode }) {
    const device = this.#devices.get(deviceCode);
    if (!device) return this.refusal(70018);
    if (device.verdict === 'decline') return json(400, body('authorization_declined', 70000, 'The end user denied the authorization request.'));
    if (device.verdict === 'expire') return this.refusal(70020);
    if (device.verdict !== 'allow') return this.refusal(70016);
    this.#devices.delete(deviceCode);
    return json(200, this.#tokens(device, device.scope));
  }

  /** Tokens for what is asked now, as far as it was granted. */
  #tokens(grant, wanted) {
    const granted = words(grant.scope);
    const scopes = words(wanted).filter((each) => granted.includes(each));
    const answer = {
      token_type: 'Bearer',
      scope: scopes.filter((each) => each !== 'offline_access').join(' '),
      expires_in: LIFE_SECONDS,
      ext_expires_in: LIFE_SECONDS,
      access_token: this.#accessToken(grant.user, LIFE_SECONDS),
    };
    if (granted.includes('offline_access')) {
      answer.refresh_token = `1.AX${random(600)}`;
      this.issued.refreshTokens.set(answer.refresh_token, grant);
    }
    if (scopes.includes('openid')) answer.id_token = this.#identity(grant, scopes);
    return answer;
  }

  /** As long as a real one, which is why it does not fit into one line of SMTP. */
  #accessToken(user, life) {
    const token = `eyJ0${random(700)}.${random(600)}.${random(256)}`;
    this.issued.accessTokens.set(token, { user: user ?? ANY_MAILBOX, exp: Math.floor(Date.now() / 1000) + life });
    return token;
  }

  #identity({ user, asked }, scopes) {
    const now = Math.floor(Date.now() / 1000);
    const tid = '9188040d-6c67-4c5b-b112-36a304b66dad';
    return this.issued.jwt({
      aud: asked.client_id,
      iss: `https://login.microsoftonline.com/${tid}/v2.0`,
      iat: now,
      nbf: now,
      exp: now + 3600,
      nonce: asked.nonce,
      sub: createHash('sha256').update(user).digest('base64url'),
      tid,
      ver: '2.0',
      ...(scopes.includes('profile') ? { name: user, oid: randomUUID(), preferred_username: user } : {}),
      ...(scopes.includes('email') ? { email: user } : {}),
    });
  }
}

function body(error, number, text, suberror) {
  const [trace, correlation] = [randomUUID(), randomUUID()];
  const timestamp = new Date().toISOString().replace('T', ' ').replace(/\.\d+Z$/, 'Z');
  return {
    error,
    error_description: `AADSTS${number}: ${text} Trace ID: ${trace} Correlation ID: ${correlation} Timestamp: ${timestamp}`,
    error_codes: [number],
    timestamp,
    trace_id: trace,
    correlation_id: correlation,
    error_uri: `https://login.microsoftonline.com/error?code=${number}`,
    ...(suberror ? { suberror } : {}),
  };
}

/** `https://outlook.office.com/SMTP.Send` is of `https://outlook.office.com`; a bare name is Graph's. */
const resourceOf = (scope) => (scope.includes('://') ? scope.slice(0, scope.lastIndexOf('/')) : 'https://graph.microsoft.com');

/** Whether the assertion names the certificate, is signed by its key, and is for this endpoint and this time. */
function isAssertionOf({ client_id: client, certificate }, assertion, audience) {
  const parts = decode(assertion);
  if (!parts || !certificate) return false;
  const { header, claims, signed, signature } = parts;
  const der = new X509Certificate(certificate).raw;
  const named = (hash, name) => header[name] === createHash(hash).update(der).digest('base64url');
  const padding = { RS256: constants.RSA_PKCS1_PADDING, PS256: constants.RSA_PKCS1_PSS_PADDING }[header.alg];
  if (!padding || !(named('sha256', 'x5t#S256') || named('sha1', 'x5t'))) return false;
  const now = Date.now() / 1000;
  const isMeant = claims.iss === client && claims.sub === client && claims.aud === audience && claims.jti
    && claims.exp > now && (claims.nbf ?? 0) <= now + 300;
  return Boolean(isMeant) && verify('RSA-SHA256', signed, { key: createPublicKey(certificate), padding }, signature);
}

function discovery(host, tenant) {
  const base = `https://${host}/${tenant}`;
  return {
    issuer: `https://${host}/${TENANTLESS.includes(tenant) ? '{tenantid}' : tenant}/v2.0`,
    authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
    token_endpoint: `${base}/oauth2/v2.0/token`,
    device_authorization_endpoint: `${base}/oauth2/v2.0/devicecode`,
    jwks_uri: `${base}/discovery/v2.0/keys`,
    response_types_supported: ['code', 'id_token', 'code id_token', 'id_token token'],
    id_token_signing_alg_values_supported: ['RS256'],
    token_endpoint_auth_methods_supported: ['client_secret_post', 'private_key_jwt', 'client_secret_basic'],
  };
}
