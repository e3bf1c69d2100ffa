//! JSON's tokens (RFC 8259), read in place: nothing is copied, and nothing nests on the call stack.

/// What is wrong, and at which byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// Deepest nesting of what is stepped over: an unknown field, or a value that is too deep to be kept.
pub(super) const SKIPPED_NESTING: usize = 1_024;

/// A string as it is in the text. Its escapes are well formed; its bytes need not be UTF-8.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// Its bytes, if no escape is among them.
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        (!self.escaped).then_some(self.raw)
    }

    /// Its bytes, with `buffer` for a string that has escapes; nothing if it is longer than that.
    pub(super) fn short<'b>(self, buffer: &'b mut [u8]) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        if !self.escaped {
            return Some(self.raw);
        }
        let mut length = 0;
        self.each(|bytes| {
            if let Some(place) = buffer.get_mut(length..length + bytes.len()) {
                place.copy_from_slice(bytes);
            }
            length += bytes.len();
        });
        buffer.get(..length)
    }

    /// Appends its bytes.
    pub(super) fn append_to(self, out: &mut Vec<u8>) {
        self.each(|bytes| out.extend_from_slice(bytes));
    }

    /// Gives out its bytes piece by piece, escapes resolved.
    fn each(self, mut take: impl FnMut(&[u8])) {
        if !self.escaped {
            return take(self.raw);
        }
        let mut rest = self.raw;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            take(&rest[..at]);
            rest = &rest[at + 1..];
            let Some((&kind, after)) = rest.split_first() else { return };
            rest = after;
            let simple = match kind {
                b'b' => 0x08,
                b'f' => 0x0C,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let character = unicode(&mut rest);
                    take(character.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                itself => itself,
            };
            take(&[simple]);
        }
        take(rest);
    }
}

/// The character whose digits `rest` begins with, and those of the second half of a pair. Half a pair, which JavaScript writes where it
/// cut a text, is no character.
fn unicode(rest: &mut &[u8]) -> char {
    let first = hex4(rest).unwrap_or(0);
    *rest = rest.get(4..).unwrap_or_default();
    if (0xD800..0xDC00).contains(&first)
        && let Some(second) = rest.strip_prefix(b"\\u").and_then(hex4)
        && (0xDC00..0xE000).contains(&second)
    {
        *rest = rest.get(6..).unwrap_or_default();
        let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The number that four hexadecimal digits make.
fn hex4(text: &[u8]) -> Option<u32> {
    text.first_chunk::<4>()?.iter().try_fold(0, |sum, digit| Some(sum << 4 | u32::from(hex_digit(*digit)?)))
}

pub(super) fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A cursor over a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(json: &'a [u8]) -> Self {
        Self { json, at: 0 }
    }

    /// Where the next byte is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn fault(&self, what: &'static str) -> Fault {
        Fault { at: self.at, what }
    }

    /// The first byte of the next token.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(*byte),
            }
        }
        None
    }

    /// Steps over `byte` if it is the next token.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { Err(self.fault(what)) }
    }

    /// After an element: true if there is another one, false after the closing `end`.
    pub(super) fn more(&mut self, end: u8) -> Result<bool, Fault> {
        if self.take(b',') {
            return Ok(true);
        }
        self.expect(end, "expected `,` or the end of the list or object").map(|()| false)
    }

    /// Steps over `word`, one of JSON's three, if it is the next token.
    pub(super) fn word(&mut self, word: &[u8]) -> bool {
        self.peek();
        let is_there = self.json[self.at..].starts_with(word);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    pub(super) fn string(&mut self) -> Result<Text<'a>, Fault> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let mut escaped = false;
        while let Some(byte) = self.json.get(self.at) {
            match byte {
                b'"' => {
                    let raw = &self.json[start..self.at];
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                b'\\' => {
                    escaped = true;
                    self.at += match self.json.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') if self.json.get(self.at + 2..).and_then(hex4).is_some() => 6,
                        _ => return Err(self.fault("an escape that JSON does not have")),
                    };
                }
                0..0x20 => return Err(self.fault("a control character inside a string")),
                _ => self.at += 1,
            }
        }
        Err(self.fault("the text ends within a string"))
    }

    pub(super) fn number(&mut self) -> Result<&'a [u8], Fault> {
        self.peek();
        let start = self.at;
        self.at += usize::from(self.json.get(self.at) == Some(&b'-'));
        match self.json.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.json.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.json.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.json.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(&self.json[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let count = self.json[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err(self.fault("expected a digit")) }
    }

    /// Nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("something follows the request")),
        }
    }

    /// Steps over one value, whatever it is.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        // One bit for each list or object that is open: whether it is an object.
        let mut open = [0_u64; SKIPPED_NESTING / 64];
        let mut depth = 0;
        loop {
            let first = self.peek();
            let opens = matches!(first, Some(b'{' | b'['));
            let is_object = first == Some(b'{');
            if opens {
                if depth == SKIPPED_NESTING {
                    return Err(self.fault("lists and objects are nested too deep"));
                }
                self.at += 1;
                let bit = 1 << (depth % 64);
                open[depth / 64] = if is_object { open[depth / 64] | bit } else { open[depth / 64] & !bit };
                depth += 1;
                let end = if is_object { b'}' } else { b']' };
                if !self.take(end) {
                    if is_object {
                        self.name()?;
                    }
                    continue;
                }
                depth -= 1;
            } else {
                self.scalar()?;
            }
            // A value has ended, and with it as many lists and objects as close here.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = open[(depth - 1) / 64] & 1 << ((depth - 1) % 64) != 0;
                if self.more(if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.name()?;
                    }
                    break;
                }
                depth -= 1;
            }
        }
    }

    /// The name of a member, with its colon.
    pub(super) fn name(&mut self) -> Result<Text<'a>, Fault> {
        let name = self.string()?;
        self.expect(b':', "expected `:`").map(|()| name)
    }

    fn scalar(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            None => Err(self.fault("the text ends where a value should be")),
            Some(_) if [&b"null"[..], b"true", b"false"].iter().any(|word| self.word(word)) => Ok(()),
            Some(_) => Err(self.fault("expected a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check is `serde_json`'s: what it takes is stepped over to its last byte, and nothing else.
    #[test]
    fn what_is_json_is_stepped_over_and_nothing_else() {
        let texts = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "10",
            "-1.5e+10",
            "1E5",
            "\"\"",
            "\"a\\n\\u00e9\\ud83d\\ude00\"",
            "[]",
            "{}",
            "[1,2]",
            "[[],[[]],{}]",
            "{\"a\":[{\"b\":{}}],\"c\":null}",
            " [ 1 , { \"a\" : [ ] } ] ",
            "[{},[{}],{\"a\":{}}]",
            "",
            " ",
            "nul",
            "nulll",
            "tru",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "\"",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u123",
            "\"\n\"",
            "[",
            "]",
            "[1",
            "[1,",
            "[,1]",
            "[1,]",
            "[1 2]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{1:1}",
            "{a:1}",
            "[}",
            "{]",
            "[{]}",
            "{\"a\":[}]",
            "1 2",
            "[] []",
            "NaN",
            "Infinity",
            "'a'",
            "\u{feff}1",
        ];
        for text in texts {
            let mut lexer = Lexer::new(text.as_bytes());
            let taken = lexer.skip().and_then(|()| lexer.end()).is_ok();
            assert_eq!(taken, serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn nesting_that_is_stepped_over_is_bounded() {
        for (depth, passes) in [(SKIPPED_NESTING, true), (SKIPPED_NESTING + 1, false), (10_000_000, false)] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = [open.repeat(depth), "1".to_owned(), close.repeat(depth)].concat();
                assert_eq!(Lexer::new(text.as_bytes()).skip().is_ok(), passes, "{depth}");
            }
        }
    }

    #[test]
    fn escapes_are_resolved() {
        for (text, expected) in [
            (r#""plain \u00e9""#, "plain \u{e9}"),
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\ud83d\ude00!""#, "\u{1F600}!"),
            (r#""\uD83D\uDE00\u0041""#, "\u{1F600}A"),
            // Halves of pairs.
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\ud83db""#, "\u{fffd}b"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1F600}"),
            (r#""\u0000""#, "\0"),
        ] {
            let read = Lexer::new(text.as_bytes()).string().unwrap();
            let mut out = Vec::new();
            read.append_to(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
            let mut buffer = [0; 32];
            assert_eq!(read.short(&mut buffer), Some(expected.as_bytes()));
            assert_eq!(read.short(&mut [0; 1]).is_some(), expected.len() <= 1, "{text}");
        }
    }
}
