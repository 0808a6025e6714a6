"""Python's smtplib as a mail program that sends: told by one JSON argument what and where.

    {"host", "port", "tls": "off"|"starttls"|"implicit", "ca", "user", "password", "from", "to", "message" (a file),
     "mail_options": [...], "rcpt_options": [...]}
"""

import json
import smtplib
import ssl
import sys

order = json.loads(sys.argv[1])
place = (order["host"], order["port"])
context = ssl.create_default_context(cafile=order["ca"])
if order["tls"] == "implicit":
    smtp = smtplib.SMTP_SSL(*place, context=context)
else:
    smtp = smtplib.SMTP(*place)
    if order["tls"] == "starttls":
        smtp.starttls(context=context)
smtp.login(order["user"], order["password"])
with open(order["message"], "rb") as message:
    text = message.read()
smtp.sendmail(order["from"], order["to"], text, order["mail_options"], order["rcpt_options"])
smtp.quit()
