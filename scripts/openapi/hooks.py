"""What the description of the API cannot say of a request, for schemathesis.

JSON Schema cannot relate a value to the time now, nor to a second request,
nor say what the bytes within base64 are. Where a case is meant to be accepted
these hooks put in values that are right; what is meant to be refused is sent
as it was made, but for `mode=permissive`, which accepts the other items of a
list that has a wrong one.
"""

import base64
import time
import uuid

import schemathesis

DAY = 86_400
RAW = base64.b64encode(b"From: a@example.com\r\nSubject: S\r\n\r\nhello\r\n").decode()


def correct(item, now):
    if not isinstance(item, dict):
        return
    for field, days in (("schedule", 1), ("expires_at", 60)):
        value = item.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            item[field] = now + days * DAY
        elif isinstance(value, str):
            seconds = time.gmtime(now + days * DAY)
            item[field] = time.strftime("%Y-%m-%dT%H:%M:%SZ", seconds)
    if isinstance(item.get("raw"), str):
        item["raw"] = RAW
    if item.get("verp"):
        # It needs a return path that is short before its "@".
        item["return_path"] = "bounces@example.com"


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.method != "POST" or case.meta is None:
        return
    if case.meta.generation.mode.is_positive:
        now = int(time.time())
        for item in case.body if isinstance(case.body, list) else [case.body]:
            correct(item, now)
        # The same key with another body is refused, as it should be.
        if "Idempotency-Key" in (case.headers or {}):
            case.headers["Idempotency-Key"] = str(uuid.uuid4())
    elif (case.query or {}).get("mode") == "permissive":
        case.query["mode"] = "strict"
