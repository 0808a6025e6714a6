"""Python's imaplib as a mail program: told by one JSON argument what to do, it prints what it read.

    {"host", "port", "ca" (null: no TLS), "user", "password", "append" (a file, instead of reading)}
"""

import hashlib
import imaplib
import json
import ssl
import sys

order = json.loads(sys.argv[1])
if order["ca"]:
    context = ssl.create_default_context(cafile=order["ca"])
    imap = imaplib.IMAP4_SSL(order["host"], order["port"], ssl_context=context)
else:
    imap = imaplib.IMAP4(order["host"], order["port"])
imap.login(order["user"], order["password"])


def of(answer):
    status, data = answer
    if status != "OK":
        sys.exit(f"refused: {data}")
    return data


if order.get("append"):
    with open(order["append"], "rb") as message:
        of(imap.append("INBOX", None, None, message.read()))
else:
    count = int(of(imap.select("INBOX", readonly=True))[0])
    for first in range(1, count + 1, 200):
        # A message is a pair of what precedes its literal, and the literal.
        for part in of(imap.fetch(f"{first}:{min(first + 199, count)}", "(BODY.PEEK[])")):
            if isinstance(part, tuple):
                print(len(part[1]), hashlib.sha256(part[1]).hexdigest())
imap.logout()
