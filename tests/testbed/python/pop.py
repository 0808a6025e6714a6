"""Python's poplib as a mail program that reads: told by one JSON argument where, it prints what it read.

    {"host", "port", "tls": "off"|"starttls"|"implicit", "ca", "user", "password"}
"""

import hashlib
import json
import poplib
import ssl
import sys

order = json.loads(sys.argv[1])
place = (order["host"], order["port"])
context = ssl.create_default_context(cafile=order["ca"])
if order["tls"] == "implicit":
    pop = poplib.POP3_SSL(*place, context=context)
else:
    pop = poplib.POP3(*place)
    if order["tls"] == "starttls":
        pop.stls(context)
pop.user(order["user"])
pop.pass_(order["password"])
count, _ = pop.stat()
for number in range(1, count + 1):
    lines = pop.retr(number)[1]
    message = b"".join(line + b"\r\n" for line in lines)
    print(len(message), hashlib.sha256(message).hexdigest())
pop.quit()
