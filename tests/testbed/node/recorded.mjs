// Google and Microsoft for machines that cannot reach them: their endpoints, under their own names and
// paths, answering in the shapes that their documentation and bug reports show (google.mjs,
// microsoft.mjs). What was sent is kept to the last parameter, for the tests to hold against that
// documentation.
//
// Two doors, both on 127.0.0.1. A plain one, for those who are told other URLs: the path tells whose
// endpoint is meant. And a proxy (RFC 9110 §9.3.6, CONNECT), for those who ask for the real URLs: it
// plays every host behind it, with the certificate that it was given, and connects to nobody. The
// control listener takes the tests' orders, and tells Dovecot whose an access token is.
//
// Started with one argument, a JSON object of the options below. Prints one JSON line when ready.
// Ends when its standard input does.

import http from 'node:http';
import https from 'node:https';
import { Google } from './google.mjs';
import { Microsoft } from './microsoft.mjs';
import { json, redirect } from './vendor.mjs';

const options = {
  google: {}, // see google.mjs
  microsoft: {}, // see microsoft.mjs
  certificate: '', // PEM, for every host of both
  key: '',
  ...JSON.parse(process.argv[2]),
};
const BODY_BYTES_MAX = 64 * 1024;
const vendors = { google: new Google(options.google), microsoft: new Microsoft(options.microsoft) };
const requests = [];
/** Answers that are given before anything else is considered: `{ path?, grant_type?, answer }`. */
const answersAhead = [];

async function bodyOf(req) {
  const chunks = [];
  let length = 0;
  for await (const chunk of req) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new Error('request body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** Whose host it is, or by the path whose endpoint. */
function vendorOf(host, path) {
  if (Google.hosts.includes(host)) return vendors.google;
  if (Microsoft.hosts.includes(host)) return vendors.microsoft;
  const isMicrosofts = /^\/[^/]+\/(oauth2\/)?v2\.0\//.test(path) || path.endsWith('/discovery/v2.0/keys');
  return isMicrosofts ? vendors.microsoft : vendors.google;
}

async function onRequest(req, res) {
  const { pathname: path, searchParams: query } = new URL(req.url, 'http://any');
  const host = req.headers.host.replace(/:443$/, '');
  const form = new URLSearchParams(await bodyOf(req));
  const { method, headers } = req;
  const entry = { scheme: req.socket.encrypted ? 'https' : 'http', host, method, path, query: [...query], headers, form: [...form], status: null };
  requests.push(entry);
  const answer = answerAhead(path, query, form) ?? vendorOf(host, path).answer({ host, method, path, query, form })
    ?? { status: 404, headers: {}, body: '' };
  entry.status = answer.status;
  res.writeHead(answer.status, { 'cache-control': 'no-store', pragma: 'no-cache', ...answer.headers }).end(answer.body);
}

function answerAhead(path, query, form) {
  const isMeant = (each) => (each.path ?? path) === path && (each.grant_type ?? form.get('grant_type')) === form.get('grant_type');
  const place = answersAhead.findIndex(isMeant);
  if (place < 0) return undefined;
  const [{ answer }] = answersAhead.splice(place, 1);
  return answer.back ? redirect(query.get('redirect_uri'), { ...answer.back, state: query.get('state') }) : answer;
}

/** What a test means by an answer: a refusal by its name or number, JSON, any text, or a user sent back with parameters. */
function answerOf({ google, aadsts, status, json: body, text, headers, back }) {
  if (google) return vendors.google.refusal(google);
  if (aadsts) return vendors.microsoft.refusal(aadsts);
  if (back) return { back };
  const answer = body === undefined ? { status, headers: { 'content-type': 'text/html' }, body: text } : json(status, body);
  return { ...answer, headers: { ...answer.headers, ...headers } };
}

const orders = {
  next: async ({ count, path, grant_type: grantType, ...meant }) => {
    for (let number = 0; number < (count ?? 1); number += 1) answersAhead.push({ path, grant_type: grantType, answer: answerOf(meant) });
    return {};
  },
  mint: async ({ vendor, user, scope }) => vendors[vendor].mint(user, scope),
  revoke: async ({ vendor, user }) => { vendors[vendor].issued.revoke(user); return {}; },
  decide: async ({ user_code: code, verdict, user }) => { vendors.microsoft.decide(code, verdict, user); return {}; },
  requests: async () => requests,
};

async function onControlRequest(req, res) {
  const body = await bodyOf(req);
  const order = orders[req.url.slice('/control/'.length)];
  let answer;
  if (req.url === '/introspection') {
    const token = new URLSearchParams(body).get('token');
    answer = Object.values(vendors).map(({ issued }) => issued.introspect(token)).find(({ active }) => active) ?? { active: false };
  } else if (order) answer = await order(JSON.parse(body || '{}'));
  else return res.writeHead(404).end();
  return res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
}

/** A request that fails inside the testbed must be heard of, not taken for an answer of the vendor. */
const loudly = (handler) => (req, res) => {
  handler(req, res).catch((error) => {
    console.error(`${req.method} ${req.url}: ${error.stack}`);
    if (!res.headersSent) res.writeHead(599);
    res.end(String(error));
  });
};

const listen = (listener) => new Promise((done, failed) => {
  listener.once('error', failed);
  listener.listen({ port: 0, host: '127.0.0.1' }, () => done(`http://127.0.0.1:${listener.address().port}`));
});

const plain = http.createServer(loudly(onRequest));
const secure = https.createServer({ cert: options.certificate, key: options.key }, loudly(onRequest));
const proxy = http.createServer((_, res) => { res.writeHead(405).end(); });
proxy.on('connect', ({ url }, socket) => {
  const isPlayed = [...Google.hosts, ...Microsoft.hosts].some((host) => url === `${host}:443`);
  if (!isPlayed) return socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
  socket.on('error', () => socket.destroy());
  socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
  return secure.emit('connection', socket);
});
const control = await listen(http.createServer(loudly(onControlRequest)));
const [url, proxyUrl] = [await listen(plain), await listen(proxy)];

process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
console.log(JSON.stringify({
  url,
  proxy_url: proxyUrl,
  control_url: `${control}/control`,
  introspection_url: `${control}/introspection`,
}));
