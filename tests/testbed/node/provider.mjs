// The testbed's OAuth2 provider: oidc-provider, with a door for tests.
//
// Two listeners, both on 127.0.0.1. The issuer is what the proxy talks to; it can be stopped and
// started again on its port. The control listener serves /control/* to the tests, and the
// introspection that Dovecot needs: so that mailboxes can still be logged in to while the issuer is
// down, which is the case "a valid access token is used on through temporary trouble".
//
// Started with one argument, a JSON object of the options below. Prints one JSON line when ready.
// Ends when its standard input does, so that it never outlives the test that started it.

import http from 'node:http';
import { Provider } from 'oidc-provider';
import { Faults } from './faults.mjs';
import { Ledger } from './ledger.mjs';
import { Store } from './store.mjs';

const options = {
  port: 0, // of the issuer; 0: any free one
  rotation: 'strict', // off | lenient (a used refresh token stays good) | strict (its reuse revokes the grant)
  access_token_seconds: 3600,
  client_auth: 'post', // post | basic | none: how the proxy's client shows who it is
  ...JSON.parse(process.argv[2] ?? '{}'),
};
const SCOPE = 'mail offline_access';
const SECRET = 'client-secret-of-the-testbed';
const AUTH_METHODS = { post: 'client_secret_post', basic: 'client_secret_basic', none: 'none' };
const BODY_BYTES_MAX = 64 * 1024;

const store = new Store(() => options.rotation === 'strict');
const faults = new Faults();
const ledger = new Ledger();

const registration = (id, authMethod) => ({
  client_id: id,
  ...(authMethod === 'none' ? {} : { client_secret: SECRET }),
  token_endpoint_auth_method: authMethod,
  application_type: 'native', // any port of a loopback redirect address is accepted
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/callback'],
});

function newProvider(issuer) {
  const provider = new Provider(issuer, {
    adapter: (model) => store.adapter(model),
    clients: [
      registration('portreeve', AUTH_METHODS[options.client_auth]),
      registration('dovecot', 'client_secret_post'),
    ],
    cookies: { keys: ['testbed'] },
    scopes: ['mail', 'offline_access'],
    features: {
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
    },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    // Dovecot takes the mailbox's name from here.
    extraTokenClaims: (_, token) => ({ username: token.accountId }),
    rotateRefreshToken: () => options.rotation !== 'off',
    ttl: {
      AccessToken: () => options.access_token_seconds,
      RefreshToken: 30 * 24 * 3600,
      Grant: 30 * 24 * 3600,
    },
  });
  provider.use(async (ctx, next) => {
    await next();
    const { entry, fault } = ctx.req.testbed ?? {};
    if (entry) entry.carried_out = ctx.status === 200;
    if (fault) await faults.disturb(fault, ctx);
  });
  return provider;
}

async function bodyOf(req) {
  const chunks = [];
  let length = 0;
  for await (const chunk of req) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new Error('request body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The same request with its body unread, for oidc-provider, which reads it itself. */
function unread(req, body, testbed) {
  const again = new http.IncomingMessage(req.socket);
  const { method, url, headers, rawHeaders, httpVersion } = req;
  Object.assign(again, { method, url, headers, rawHeaders, httpVersion, testbed, complete: true });
  again.push(body);
  again.push(null);
  return again;
}

async function onIssuerRequest(req, res) {
  if (req.method !== 'POST' || req.url.split('?')[0] !== '/token') return provider.callback()(req, res);
  const body = await bodyOf(req);
  const params = Object.fromEntries(new URLSearchParams(body.toString()));
  const user = store.userOfRefreshToken(params.refresh_token);
  const fault = faults.take(user);
  const entry = ledger.begin(req, params, user, fault);
  res.once('close', () => ledger.end(entry, res.writableFinished ? res.statusCode : null));
  if (fault && faults.answer(fault, req, res)) return undefined;
  return provider.callback()(unread(req, body, { entry, fault }), res);
}

/** What a user's consent in a browser would have led to. */
async function mint({ user, access_token_seconds: seconds }) {
  const client = await provider.Client.find('portreeve');
  const grant = new provider.Grant({ accountId: user, clientId: client.clientId });
  grant.addOIDCScope(SCOPE);
  const grantId = await grant.save();
  const common = { accountId: user, client, grantId, scope: SCOPE, gty: 'authorization_code' };
  const refreshToken = await new provider.RefreshToken({ ...common, rotations: 0 }).save();
  const life = seconds ?? options.access_token_seconds;
  const exp = Math.floor(Date.now() / 1000) + life; // a negative life: expired already
  const accessToken = await new provider.AccessToken({ ...common, exp }).save();
  return { refresh_token: refreshToken, access_token: accessToken, expires_in: life };
}

const orders = {
  mint,
  fault: async (fault) => { faults.add(fault); return {}; },
  'clear-faults': async ({ user }) => { faults.clear(user); return {}; },
  options: async (changes) => Object.assign(options, changes),
  'revoke-access-token': async ({ access_token: token }) => ({ revoked: store.revokeAccessToken(token) }),
  'revoke-access-tokens': async ({ user }) => ({ revoked: store.revokeAccessTokensOf(user) }),
  'revoke-grants': async ({ user }) => ({ revoked: store.revokeGrantsOf(user) }),
  counters: async ({ user }) => ledger.counters(user),
  log: async ({ user }) => ledger.requests(user),
  // Connections are refused from here on, and those that were open are cut.
  stop: async () => {
    await new Promise((done) => { issuerListener.close(done); issuerListener.closeAllConnections(); });
    return {};
  },
  start: async () => { await listen(issuerListener, options.port); return {}; },
};

async function onControlRequest(req, res) {
  if (!req.url.startsWith('/control/')) return provider.callback()(req, res);
  const order = orders[req.url.slice('/control/'.length)];
  if (!order) return res.writeHead(404).end();
  const body = await bodyOf(req);
  const answer = JSON.stringify(await order(JSON.parse(body.length ? body.toString() : '{}')));
  return res.writeHead(200, { 'content-type': 'application/json' }).end(answer);
}

/** A request that fails inside the testbed must be heard of, not taken for a fault of the provider. */
const loudly = (handler) => (req, res) => {
  handler(req, res).catch((error) => {
    console.error(`${req.method} ${req.url}: ${error.stack}`);
    if (!res.headersSent) res.writeHead(599);
    res.end(String(error));
  });
};

const listen = (listener, port) => new Promise((done, failed) => {
  listener.once('error', failed);
  listener.listen({ port, host: '127.0.0.1', backlog: 1024 }, () => {
    listener.removeListener('error', failed);
    done(listener.address().port);
  });
});

const issuerListener = http.createServer(loudly(onIssuerRequest));
const controlListener = http.createServer(loudly(onControlRequest));
options.port = await listen(issuerListener, options.port);
const controlPort = await listen(controlListener, 0);
const issuer = `http://127.0.0.1:${options.port}`;
const control = `http://127.0.0.1:${controlPort}`;
const provider = newProvider(issuer);

process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
console.log(JSON.stringify({
  issuer,
  token_url: `${issuer}/token`,
  introspection_url: `${control}/token/introspection`,
  control_url: `${control}/control`,
  client_id: 'portreeve',
  client_secret: SECRET,
}));
