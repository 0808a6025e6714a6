// A real browser for tests: Debian's Chromium without a screen, driven by playwright-core. Told by one
// JSON argument where its home is and whom to trust; takes orders on standard input, one JSON object
// a line, `{"id", "do", …}`, and answers each with a line, `{"id", "answer"}` or `{"id", "error"}`.
// Ends, with the browser, when its standard input does.
//
//   {"home": a directory of its own, "ca_files": [PEM files of authorities to trust],
//    "proxy": the URL of a proxy, through which goes all but this machine's own addresses, or none}
//
// Each context is a person of its own: cookies, screen and colours are not shared.

import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import axe from 'axe-core';
import { chromium } from 'playwright-core';

const options = JSON.parse(process.argv[2]);
const VIEWPORTS = { desktop: { width: 1280, height: 800 }, phone: { width: 375, height: 667 } };
/** Longer than a loaded machine needs for any page, and shorter than the patience of the tests. */
const TIMEOUT_MILLISECONDS = 20_000;

/** Chromium trusts, beside its own list, what the NSS database in its user's home does. */
function trust(caFiles) {
  const database = `${options.home}/.pki/nssdb`;
  mkdirSync(database, { recursive: true });
  const certutil = (...args) => execFileSync('certutil', ['-d', `sql:${database}`, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  certutil('-N', '--empty-password');
  caFiles.forEach((file, number) => certutil('-A', '-n', `authority ${number}`, '-t', 'C,,', '-i', file));
}

/** What is remembered of a context: its page, where that has been led, and what it complained of. */
class Tab {
  constructor(context, page, runsScripts) {
    this.context = context;
    this.page = page;
    this.runsScripts = runsScripts;
    this.navigation = null; // the answer that the page in view came with
    this.requests = [];
    this.complaints = [];
    page.setDefaultTimeout(TIMEOUT_MILLISECONDS);
    page.on('request', (request) => this.requests.push(request));
    page.on('response', (response) => {
      const request = response.request();
      if (request.isNavigationRequest() && response.frame() === page.mainFrame()) this.navigation = response;
    });
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.complaints.push(`${message.text()} (${message.location().url})`);
    });
    page.on('pageerror', (error) => this.complaints.push(String(error)));
  }

  async shown() {
    const [headers, status] = this.navigation ? [await this.navigation.allHeaders(), this.navigation.status()] : [{}, 0];
    return { url: this.page.url(), title: await this.page.title(), status, headers };
  }
}

const tabs = new Map();
let tabsMade = 0;

/** Loads a page that bids the browser to fetch `url` ahead, and says how that went. */
async function prefetch({ context }, { url }) {
  const page = await context.newPage();
  const bidding = new URL('/a-page-that-links', url).href;
  await page.route(bidding, (route) => route.fulfill({
    contentType: 'text/html',
    body: `<!DOCTYPE html><title>Links</title><link rel="prefetch" href="${url.replaceAll('&', '&amp;')}">`,
  }));
  const [response] = await Promise.all([
    page.waitForEvent('response', { predicate: (each) => each.url() === url, timeout: TIMEOUT_MILLISECONDS }),
    page.goto(bidding),
  ]);
  const answer = { status: response.status(), headers: await response.request().allHeaders() };
  await page.close();
  return answer;
}

const orders = {
  open: async (_, { viewport, colors, scripts }) => {
    const context = await browser.newContext({
      viewport: VIEWPORTS[viewport],
      isMobile: viewport === 'phone',
      hasTouch: viewport === 'phone',
      colorScheme: colors,
      javaScriptEnabled: scripts,
      locale: 'en',
    });
    tabsMade += 1;
    tabs.set(tabsMade, new Tab(context, await context.newPage(), scripts));
    return tabsMade;
  },
  goto: async (tab, { url }) => { await tab.page.goto(url); return tab.shown(); },
  // Clicks, and waits until the page to which that leads has loaded.
  follow: async (tab, { selector }) => {
    await Promise.all([tab.page.waitForEvent('load'), tab.page.click(selector)]);
    return tab.shown();
  },
  // The same, with a second click right behind the first.
  'follow-twice': async (tab, { selector }) => {
    await Promise.all([tab.page.waitForEvent('load'), tab.page.dblclick(selector)]);
    return tab.shown();
  },
  back: async (tab) => { await tab.page.goBack(); return tab.shown(); },
  look: async (tab, { viewport, colors }) => {
    await tab.page.setViewportSize(VIEWPORTS[viewport]);
    await tab.page.emulateMedia({ colorScheme: colors });
  },
  reload: async (tab) => { await tab.page.reload(); return tab.shown(); },
  fill: async (tab, { selector, value }) => tab.page.fill(selector, value),
  tick: async (tab, { selector, ticked }) => tab.page.setChecked(selector, ticked),
  text: async (tab, { selector }) => tab.page.innerText(selector),
  html: async (tab) => tab.page.content(),
  count: async (tab, { selector }) => tab.page.locator(selector).count(),
  screenshot: async (tab, { file }) => { await tab.page.screenshot({ path: file, fullPage: true }); },
  // All of axe's rules but its experiments. A page's own policy on scripts does not hold for an inspector,
  // but where the browser runs none, axe would wait for ever.
  axe: async (tab) => {
    if (!tab.runsScripts) throw new Error('axe needs a browser that runs scripts');
    await tab.page.evaluate(axe.source);
    const { violations } = await tab.page.evaluate('axe.run(document)');
    return violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, nodes: nodes.map((node) => node.html) }));
  },
  prefetch,
  cookies: async (tab) => tab.context.cookies(),
  requests: async (tab) => Promise.all(tab.requests.map(async (request) => ({
    method: request.method(), url: request.url(), headers: await request.allHeaders(),
  }))),
  complaints: async (tab) => tab.complaints,
  close: async (tab, { tab: number }) => { tabs.delete(number); await tab.context.close(); },
};

async function carryOut(order) {
  const action = orders[order.do];
  if (!action) throw new Error(`no such order: ${order.do}`);
  return (await action(tabs.get(order.tab), order)) ?? null;
}

trust(options.ca_files);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  chromiumSandbox: false, // it has none for root
  proxy: options.proxy ? { server: options.proxy } : undefined,
  env: { ...process.env, HOME: options.home },
  args: [
    '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    // What it would do unasked all the same ends here: no name but this machine's own is looked up.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]',
  ],
});
const say = (line) => console.log(JSON.stringify(line));
say({ id: 0, answer: browser.version() });
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  await carryOut(order).then(
    (answer) => say({ id: order.id, answer }),
    (error) => say({ id: order.id, error: String(error.stack) }),
  );
}
await browser.close();
