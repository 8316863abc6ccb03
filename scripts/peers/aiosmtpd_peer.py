"""A receiving SMTP server for the tests: stores each mail as two files.

NNNNNN.eml holds the bytes as they came, NNNNNN.json the envelope and what is
known of the session. The JSON is renamed into place last, so that whoever sees
it finds both whole. Runs until SIGTERM or SIGINT.
"""

import argparse
import base64
import email
import email.policy
import itertools
import json
import pathlib
import signal
import ssl
from email.errors import NonASCIILocalPartDefect

from aiosmtpd.controller import Controller


def addresses(field):
    return [[one.display_name, one.addr_spec] for one in field.addresses]


def parsed(content):
    """The mail as Python's own parser understands it."""
    # As text, since of bytes Python's parser takes header fields for ASCII.
    mail = email.message_from_string(content.decode(), policy=email.policy.SMTPUTF8)
    text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    attachments = {
        part.get_filename(): base64.b64encode(part.get_payload(decode=True)).decode()
        for part in mail.iter_attachments()
    }
    defects = [defect for part in mail.walk() for defect in part.defects]
    defects += [defect for value in mail.values() for defect in value.defects]
    # An international address is what SMTPUTF8 is for.
    defects = [d for d in defects if not isinstance(d, NonASCIILocalPartDefect)]
    return {
        "from": addresses(mail["From"]),
        "to": addresses(mail["To"]),
        "subject": mail["Subject"],
        "text": text and text.get_content().replace("\r\n", "\n"),
        "html": html and html.get_content().replace("\r\n", "\n"),
        "attachments": attachments,
        "defects": [repr(defect) for defect in defects],
    }


class Keeper:
    def __init__(self, directory):
        self.directory = directory
        self.numbers = itertools.count()

    async def handle_DATA(self, server, session, envelope):
        name = self.directory / f"{next(self.numbers):06}"
        name.with_suffix(".eml").write_bytes(envelope.original_content)
        cipher = server.transport.get_extra_info("cipher")
        about = {
            "mail_from": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "options": envelope.mail_options,
            "ehlo": session.host_name,
            "extended": session.extended_smtp,
            "tls": cipher[1] if cipher else None,
            "parsed": parsed(envelope.original_content),
        }
        part = name.with_suffix(".part")
        part.write_text(json.dumps(about))
        part.rename(name.with_suffix(".json"))
        return "250 2.0.0 kept"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=pathlib.Path, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    arguments = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
    # Blocked before the server's thread starts: sigwait alone shall see them.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    controller = Controller(
        Keeper(arguments.directory),
        hostname="127.0.0.1",
        port=arguments.port,
        server_hostname="aiosmtpd.test",
        tls_context=context,
        enable_SMTPUTF8=True,
    )
    controller.start()
    signal.sigwait(ends)
    controller.stop()


if __name__ == "__main__":
    main()
