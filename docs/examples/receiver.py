"""A receiver of Stayline's webhooks: verify, store by id, answer. Python 3.11, no libraries.

STAYLINE_CRM_SECRET=whsec_... python receiver.py 8099 received.sqlite3
"""

import base64
import hashlib
import hmac
import os
import sqlite3
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

# One secret, or two separated by a space while they change over.
KEYS = [base64.b64decode(secret.removeprefix("whsec_")) for secret in os.environ["STAYLINE_CRM_SECRET"].split()]
STORE = sqlite3.connect(sys.argv[2], isolation_level=None)
STORE.execute("CREATE TABLE IF NOT EXISTS received (id TEXT PRIMARY KEY, body BLOB)")


def is_genuine(headers, body):
    name, sent_s = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent_s.isdecimal() or abs(time.time() - int(sent_s)) > 300:
        return False  # old: somebody may be repeating what they overheard
    signed = f"{name}.{sent_s}.".encode() + body
    own = ["v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in KEYS]
    return any(hmac.compare_digest(mine, each) for mine in own for each in headers.get("webhook-signature", "").split())


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not is_genuine(self.headers, body):
            return self.answer(401)
        # The id is the same on every retry: what is known already is taken and changes nothing.
        STORE.execute("INSERT INTO received VALUES (?, ?) ON CONFLICT DO NOTHING", (self.headers["webhook-id"], body))
        return self.answer(204)  # only now that it is on disk

    def answer(self, status):
        self.send_response(status)
        self.end_headers()


HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
