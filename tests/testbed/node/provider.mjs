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
import { Provider, errors } from 'oidc-provider';
import { BEARER, JWT_BEARER, PROXY, SECRET, APP, registrations, thumbprint } from './clients.mjs';
import { Faults } from './faults.mjs';
import { registerGrants } from './grants.mjs';
import { Ledger } from './ledger.mjs';
import { Interactions, deviceFlowPages, renderError } from './pages.mjs';
import { Polls } from './polls.mjs';
import { Store } from './store.mjs';

const options = {
  port: 0, // of the issuer; 0: any free one
  rotation: 'strict', // off | lenient (a used refresh token stays good) | strict (its reuse revokes the grant)
  access_token_seconds: 3600,
  client_auth: 'post', // post | basic | none: how the proxy's client shows who it is
  redirect_uris: [], // that it may use beside those on loopback: its public callback
  device_code_seconds: 600,
  device_interval: 1, // seconds between two polls
  app_auth: 'post', // post | private_key_jwt: the same for the client that acts for itself
  app_key: null, // its public key or certificate, PEM; of a certificate the assertion must name the thumbprint
  app_alg: 'RS256',
  passwords: {}, // by user: who may be logged in by password
  service_account: null, // who may stand in for users: see assertions.mjs
  ...JSON.parse(process.argv[2] ?? '{}'),
};
const SCOPE = 'mail offline_access';
const BODY_BYTES_MAX = 64 * 1024;

const store = new Store(() => options.rotation === 'strict');
const faults = new Faults();
const ledger = new Ledger(); // of the token endpoint
const visitors = new Ledger(); // of those others on which something is asked for or given back
const polls = new Polls();

function newProvider(issuer) {
  const provider = new Provider(issuer, {
    adapter: (model) => store.adapter(model),
    clients: registrations(options),
    cookies: { keys: ['testbed'] },
    scopes: ['openid', 'email', 'mail', 'offline_access'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    conformIdTokenClaims: false, // the address is in the id_token, as at Google and Microsoft
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true, ...deviceFlowPages },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: mayIntrospect },
      revocation: { enabled: true },
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    renderError,
    findAccount: (_, id) => ({ accountId: id, claims: () => claimsOf(id) }),
    // Dovecot takes the mailbox's name from here. An application that acts for itself has none.
    extraTokenClaims: (_, token) => ({ username: token.accountId ?? token.clientId }),
    assertJwtClientAuthClaimsAndHeader: (_, __, header) => {
      const wanted = options.app_key && thumbprint(options.app_key);
      if (wanted && header['x5t#S256'] !== wanted) throw new errors.InvalidClientAuth('another certificate');
    },
    rotateRefreshToken: () => options.rotation !== 'off',
    ttl: {
      AccessToken: () => options.access_token_seconds,
      ClientCredentials: () => options.access_token_seconds,
      DeviceCode: () => options.device_code_seconds,
      RefreshToken: 30 * 24 * 3600,
      Grant: 30 * 24 * 3600,
      IdToken: 3600,
      Interaction: 3600,
      Session: 24 * 3600,
    },
  });
  registerGrants(provider, options);
  const { redirectUriAllowed } = provider.Client.prototype;
  // Registered later than the client: the proxy's public callback is known only when it listens.
  provider.Client.prototype.redirectUriAllowed = function isAllowed(uri) {
    return redirectUriAllowed.call(this, uri) || options.redirect_uris.includes(uri);
  };
  provider.use(async (ctx, next) => {
    await next();
    const { entry, fault } = ctx.req.testbed ?? {};
    if (entry) entry.carried_out = ctx.status === 200;
    if (ctx.oidc?.route === 'device_authorization' && ctx.status === 200) {
      ctx.body = { ...ctx.body, interval: options.device_interval };
      polls.begin(ctx.body.device_code, options.device_interval);
    }
    if (fault) await faults.disturb(fault, ctx);
  });
  return provider;
}

function claimsOf(user) {
  return { sub: user, email: user.includes('@') ? user : `${user}@example.com`, email_verified: true };
}

/** One of Dovecot's roles hears of tokens that applications hold for themselves, and of no others. */
function mayIntrospect(_, client, token) {
  return client.clientId !== 'dovecot-apps' || token.kind === 'ClientCredentials';
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

/** The same request with this body, unread, for oidc-provider, which reads it itself. */
function unread(req, body, testbed) {
  const again = new http.IncomingMessage(req.socket);
  const { method, url, headers, rawHeaders, httpVersion } = req;
  const length = { 'content-length': String(body.length) };
  Object.assign(again, { method, url, headers: { ...headers, ...length }, rawHeaders, httpVersion, testbed, complete: true });
  again.push(body);
  again.push(null);
  return again;
}

/** The parameters of a request: of the query, and those of the form. */
const paramsOf = (req, body) => Object.fromEntries([
  ...new URL(req.url, issuer).searchParams,
  ...new URLSearchParams(body?.toString()),
]);

const VISITED = ['/auth', '/device/auth', '/token/revocation'];

async function onIssuerRequest(req, res) {
  const path = req.url.split('?')[0];
  if (req.method === 'POST' && path === '/token') return onTokenRequest(req, res);
  if (Interactions.isOne(path)) {
    const form = req.method === 'POST' ? new URLSearchParams((await bodyOf(req)).toString()) : undefined;
    return interactions.answer(req, res, form);
  }
  if (!VISITED.includes(path)) return provider.callback()(req, res);
  const body = req.method === 'POST' ? await bodyOf(req) : undefined;
  const entry = note(visitors, req, res, paramsOf(req, body));
  return provider.callback()(body ? unread(req, body, { entry }) : req, res);
}

async function onTokenRequest(req, res) {
  let body = await bodyOf(req);
  const params = paramsOf(req, body);
  const user = store.userBehind(params);
  const fault = faults.take(user);
  const entry = note(ledger, req, res, params, user, fault);
  if (fault?.kind === 'slow_down') polls.slowDown(params.device_code);
  if (fault && faults.answer(fault, req, res)) return undefined;
  if (polls.isTooSoon(params.device_code)) return faults.answer({ kind: 'slow_down' }, req, res);
  // oidc-provider wants a client for every request, and this grant needs none.
  if (params.grant_type === JWT_BEARER && !params.client_id) body = Buffer.concat([body, Buffer.from(`&client_id=${BEARER}`)]);
  return provider.callback()(unread(req, body, { entry, fault }), res);
}

/** An entry for a request, which ends with its answer or its connection. */
function note(book, req, res, params, user, fault) {
  const entry = book.begin(req, params, user, fault);
  res.once('close', () => book.end(entry, res.writableFinished ? res.statusCode : null));
  return entry;
}

/** What a user's consent in a browser would have led to. */
async function mint({ user, access_token_seconds: seconds }) {
  const client = await provider.Client.find(PROXY);
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
  visits: async ({ path }) => visitors.requests().filter((entry) => entry.path.split('?')[0] === path),
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
const interactions = new Interactions(provider);

process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
console.log(JSON.stringify({
  issuer,
  authorize_url: `${issuer}/auth`,
  token_url: `${issuer}/token`,
  device_url: `${issuer}/device/auth`,
  revocation_url: `${issuer}/token/revocation`,
  introspection_url: `${control}/token/introspection`,
  control_url: `${control}/control`,
  client_id: PROXY,
  client_secret: SECRET,
  app_client_id: APP,
}));
