// imapflow as a mail program: told by one JSON argument what to do, it prints what it read.
//
//   {"host", "port", "ca" (null: no TLS), "user", "password", "idle" (wait for a new message, instead of reading all)}

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ImapFlow } from 'imapflow';

const order = JSON.parse(process.argv[2]);
const client = new ImapFlow({
  host: order.host,
  port: order.port,
  secure: Boolean(order.ca),
  doSTARTTLS: false, // Without a CA, in clear is what is meant.
  tls: order.ca ? { ca: readFileSync(order.ca, 'utf8') } : {},
  auth: { user: order.user, pass: order.password },
  logger: false,
});

async function read(range) {
  for await (const { source } of client.fetch(range, { source: true })) {
    console.log(`${source.length} ${createHash('sha256').update(source).digest('hex')}`);
  }
}

await client.connect();
const mailbox = await client.mailboxOpen('INBOX', { readOnly: true });
if (order.idle) {
  const arrived = new Promise((done) => client.once('exists', ({ count }) => done(count)));
  client.idle().catch(() => {}); // It ends when another command begins.
  console.log('idling');
  await read(String(await arrived));
} else {
  await read(`1:${mailbox.exists}`);
}
await client.logout();
