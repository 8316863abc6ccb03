//! What a server says in its reply to EHLO (RFC 5321 section 4.1.1.1).

/// The service extensions that a server offers, as far as we use or report
/// them. A server that was greeted with HELO offers none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// The limit that SIZE declares, in bytes. `None`: none is declared.
    pub size_limit: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
}

impl Capabilities {
    /// Reads the text of a reply to EHLO. Its first line names the server, each
    /// further one is a keyword with parameters; unknown keywords are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.split('\n').skip(1) {
            found.add(line);
        }
        found
    }

    fn add(&mut self, line: &str) {
        // Some servers write `SIZE=n`, after a draft of RFC 1869.
        let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        if is("PIPELINING") {
            self.pipelining = true;
        } else if is("SIZE") {
            self.size = true;
            // RFC 1870 section 4: 0 or nothing means no fixed limit.
            self.size_limit = words.next().and_then(|n| n.parse().ok()).filter(|limit| *limit != 0);
        } else if is("8BITMIME") {
            self.eight_bit_mime = true;
        } else if is("SMTPUTF8") {
            self.smtputf8 = true;
        } else if is("STARTTLS") {
            self.starttls = true;
        } else if is("CHUNKING") {
            self.chunking = true;
        } else if is("ENHANCEDSTATUSCODES") {
            self.enhanced_status_codes = true;
        } else if is("DSN") {
            self.dsn = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keywords() {
        let none = Capabilities::default;
        for (text, expected) in [
            ("mx.example", none()),
            ("", none()),
            // The first line is a name, even when it looks like a keyword.
            ("PIPELINING", none()),
            ("mx\nPIPELINING", Capabilities { pipelining: true, ..none() }),
            ("mx\npipelining", Capabilities { pipelining: true, ..none() }),
            ("mx\nSIZE", Capabilities { size: true, ..none() }),
            ("mx\nSIZE 0", Capabilities { size: true, ..none() }),
            ("mx\nSize 1000", Capabilities { size: true, size_limit: Some(1000), ..none() }),
            ("mx\nSIZE=1000", Capabilities { size: true, size_limit: Some(1000), ..none() }),
            ("mx\nSIZE many", Capabilities { size: true, ..none() }),
            ("mx\nSIZE 99999999999999999999999", Capabilities { size: true, ..none() }),
            ("mx\n8BitMime\n", Capabilities { eight_bit_mime: true, ..none() }),
            ("mx\nSMTPUTF8", Capabilities { smtputf8: true, ..none() }),
            ("mx\nSTARTTLS", Capabilities { starttls: true, ..none() }),
            ("mx\nSTARTTLSX\nXSTARTTLS", none()),
            ("mx\nAUTH PLAIN LOGIN\nHELP\nX-OTHER a=b", none()),
            (
                "mx at your service\nDSN\nCHUNKING\nENHANCEDSTATUSCODES",
                Capabilities { dsn: true, chunking: true, enhanced_status_codes: true, ..none() },
            ),
        ] {
            assert_eq!(Capabilities::parse(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(\\PC{0,20}\n){0,5}(SIZE \\PC{0,5}\n)?") {
            let found = Capabilities::parse(&text);
            prop_assert!(found.size_limit != Some(0));
        }
    }
}
