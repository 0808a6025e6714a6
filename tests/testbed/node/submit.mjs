// nodemailer as a mail program that sends: told by one JSON argument what and where.
//
//   {"host", "port", "tls": "off"|"starttls"|"implicit", "ca", "user", "password", "from", "to", "message" (a file),
//    "eight_bit" (say that it is not 7-bit), "dsn" (nodemailer's own words for a delivery report, or null)}

import { readFileSync } from 'node:fs';
import { createTransport } from 'nodemailer';

const order = JSON.parse(process.argv[2]);
const transport = createTransport({
  host: order.host,
  port: order.port,
  secure: order.tls === 'implicit',
  requireTLS: order.tls === 'starttls',
  ignoreTLS: order.tls === 'off',
  tls: { ca: readFileSync(order.ca, 'utf8') },
  auth: { user: order.user, pass: order.password },
});
const { rejected } = await transport.sendMail({
  envelope: { from: order.from, to: [order.to], use8BitMime: order.eight_bit },
  dsn: order.dsn ?? undefined,
  raw: readFileSync(order.message),
});
process.exitCode = rejected.length;
