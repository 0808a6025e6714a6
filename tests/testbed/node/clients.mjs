// Who is registered at the provider, and what each may do there.

import { createHash, createPublicKey, X509Certificate } from 'node:crypto';

export const SECRET = 'client-secret-of-the-testbed';
export const PROXY = 'portreeve';
export const APP = 'portreeve-app';
export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
/** Stands for those who need not say who they are, because their assertion does (RFC 7521 §4.1). */
export const BEARER = 'bearer-of-an-assertion';

const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';
const AUTH_METHODS = { post: 'client_secret_post', basic: 'client_secret_basic', none: 'none', private_key_jwt: 'private_key_jwt' };
const LOOPBACK_HOSTS = ['127.0.0.1', 'localhost', '[::1]'];
/** The first stands for none: the provider compares text, and the command line names itself without a slash, as Microsoft wants it. */
const LOOPBACK_PATHS = ['', '/', '/callback', '/oauth/callback'];

/**
 * The proxy as a native application that acts for users (PROXY), the same as a service that acts for itself (APP),
 * those who present a service account's assertion (BEARER), and Dovecot in two roles: `dovecot` asks about anybody's
 * token, `dovecot-apps` is answered about those of applications only.
 */
export function registrations(options) {
  return [
    {
      ...client(PROXY, AUTH_METHODS[options.client_auth]),
      application_type: 'native', // any port of a loopback redirect address is accepted
      grant_types: ['authorization_code', 'refresh_token', DEVICE_CODE, 'password'],
      response_types: ['code'],
      redirect_uris: LOOPBACK_HOSTS.flatMap((host) => LOOPBACK_PATHS.map((path) => `http://${host}${path}`)),
    },
    {
      ...client(APP, AUTH_METHODS[options.app_auth]),
      ...(options.app_key ? { jwks: { keys: [publicJwk(options.app_key)] } } : {}),
      ...(options.app_auth === 'private_key_jwt' ? { token_endpoint_auth_signing_alg: options.app_alg } : {}),
      grant_types: ['client_credentials'],
    },
    { ...client(BEARER, 'none'), grant_types: [JWT_BEARER] },
    client('dovecot', 'client_secret_post'),
    client('dovecot-apps', 'client_secret_post'),
  ];
}

/** The form of SHA-256 by which `x5t#S256` names a certificate (RFC 7515 §4.1.8); null for a bare key. */
export function thumbprint(pem) {
  if (!pem.includes('BEGIN CERTIFICATE')) return null;
  return createHash('sha256').update(new X509Certificate(pem).raw).digest('base64url');
}

function client(id, authMethod) {
  const hasSecret = authMethod.startsWith('client_secret');
  return {
    client_id: id,
    ...(hasSecret ? { client_secret: SECRET } : {}),
    token_endpoint_auth_method: authMethod,
    grant_types: [],
    response_types: [],
    redirect_uris: [],
  };
}

/** Of a public key or a certificate, PEM. */
const publicJwk = (pem) => createPublicKey(pem).export({ format: 'jwk' });
