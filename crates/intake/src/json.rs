//! Reading JSON so that one pass finds everything that is wrong.
//!
//! A derived reader stops at the first value of the wrong type. Here each
//! value is read by a [`Read`], which takes whatever it is given, notes what
//! is wrong with it at its JSON pointer, and goes on. Only text that is not
//! JSON at all is an error of the reader.

use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
};

use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use crate::{
    config::Limits,
    errors::{Errors, code},
};

/// Where a value stands, as a JSON pointer (RFC 6901). A list along the
/// stack, so that nothing is allocated unless there is something to say.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => write!(f, "{parent}/{}", escaped(key)),
            Self::Index(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// A key as a pointer's token (RFC 6901 section 3), bounded in length.
pub(crate) fn escaped(key: &str) -> String {
    shortened(key).replace('~', "~0").replace('/', "~1")
}

/// Enough of what was given to recognise it.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Where a value stands, and where to note what is wrong with it.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) path: &'a Path<'a>,
    pub(crate) errors: &'a RefCell<Errors>,
    pub(crate) limits: &'a Limits,
    /// How many substitutions the request may still have.
    pub(crate) values: &'a Cell<usize>,
}

impl<'a> At<'a> {
    pub(crate) fn note(&self, code: &'static str, detail: impl fmt::Display) {
        self.errors.borrow_mut().add(self.path, code, detail);
    }

    pub(crate) fn below<'b>(&self, path: &'b Path<'b>) -> At<'b>
    where
        'a: 'b,
    {
        At { path, ..*self }
    }
}

/// How a value of one kind is read. `None` when it was noted as wrong, or
/// `null`, which is the same as absent.
pub(crate) trait Read<'de>: Sized {
    type Value;
    /// Completes "must be ".
    const EXPECTED: &'static str;

    fn string(self, _text: &str, at: At<'_>) -> Option<Self::Value> {
        self.mismatch(Unexpected::Other("a string"), at)
    }

    fn integer(self, _number: i128, at: At<'_>) -> Option<Self::Value> {
        self.mismatch(Unexpected::Other("a number"), at)
    }

    fn boolean(self, value: bool, at: At<'_>) -> Option<Self::Value> {
        self.mismatch(Unexpected::Bool(value), at)
    }

    fn list<A: SeqAccess<'de>>(
        self,
        mut items: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.mismatch(Unexpected::Other("a list"), at))
    }

    fn object<A: MapAccess<'de>>(
        self,
        mut entries: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.mismatch(Unexpected::Other("an object"), at))
    }

    fn mismatch(self, found: Unexpected<'_>, at: At<'_>) -> Option<Self::Value> {
        at.note(code::TYPE_MISMATCH, format_args!("must be {}, not {found}", Self::EXPECTED));
        None
    }
}

/// A [`Read`] at its place, as serde wants it.
pub(crate) struct Seed<'a, R> {
    pub(crate) read: R,
    pub(crate) at: At<'a>,
    /// Whether `null` is the same as absent: for fields of an object.
    pub(crate) nullable: bool,
}

impl<'de, R: Read<'de>> DeserializeSeed<'de> for Seed<'_, R> {
    type Value = Option<R::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for Seed<'_, R> {
    type Value = Option<R::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(R::EXPECTED)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        if self.nullable {
            return Ok(None);
        }
        Ok(self.read.mismatch(Unexpected::Other("null"), self.at))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.read.boolean(value, self.at))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.read.string(text, self.at))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.read.integer(number.into(), self.at))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.read.integer(number.into(), self.at))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        // JSON has one kind of number: 5.0 is the integer 5.
        if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within range")]
            let whole = number as i128;
            return Ok(self.read.integer(whole, self.at));
        }
        Ok(self.read.mismatch(Unexpected::Float(number), self.at))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        self.read.list(items, self.at)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        self.read.object(entries, self.at)
    }
}

/// The entries of an object whose fields are known. Names that are unknown or
/// come twice are noted and skipped.
pub(crate) struct Fields<'a, A> {
    entries: A,
    known: &'static [&'static str],
    seen: u64,
    at: At<'a>,
}

impl<'de, 'a, A: MapAccess<'de>> Fields<'a, A> {
    /// `known` has at most 64 names.
    pub(crate) const fn new(entries: A, known: &'static [&'static str], at: At<'a>) -> Self {
        Self { entries, known, seen: 0, at }
    }

    /// The name of the next field, whose value must then be read.
    pub(crate) fn next(&mut self) -> Result<Option<&'static str>, A::Error> {
        loop {
            let Some(key) = self.entries.next_key_seed(KnownKey(self.known))? else {
                return Ok(None);
            };
            match key {
                Ok(index) if self.seen & (1 << index) == 0 => {
                    self.seen |= 1 << index;
                    return Ok(self.known.get(index).copied());
                }
                Ok(index) => {
                    let name = self.known.get(index).copied().unwrap_or_default();
                    let path = Path::Key(self.at.path, name);
                    self.at.below(&path).note(
                        code::DUPLICATE_FIELD,
                        format_args!("{name:?} is there more than once"),
                    );
                }
                Err(name) => self.unknown(&name),
            }
            self.entries.next_value::<IgnoredAny>()?;
        }
    }

    /// The value of the field that [`Self::next`] named.
    pub(crate) fn value<R: Read<'de>>(
        &mut self,
        name: &'static str,
        read: R,
    ) -> Result<Option<R::Value>, A::Error> {
        let path = Path::Key(self.at.path, name);
        self.entries.next_value_seed(Seed { read, at: self.at.below(&path), nullable: true })
    }

    fn unknown(&self, name: &str) {
        if self.at.errors.borrow().is_full() {
            return;
        }
        let path = Path::Key(self.at.path, name);
        let at = self.at.below(&path);
        match nearest(name, self.known) {
            Some(near) => at.note(
                code::UNKNOWN_FIELD,
                format_args!("{:?} is not a known field; did you mean {near:?}?", shortened(name)),
            ),
            None => at.note(
                code::UNKNOWN_FIELD,
                format_args!(
                    "{:?} is not a known field; known are {}",
                    shortened(name),
                    self.known.join(", ")
                ),
            ),
        }
    }
}

/// The known name that was probably meant.
fn nearest(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let name = shortened(name).to_ascii_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A key: the index of a known name, or the unknown name.
struct KnownKey(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KnownKey {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KnownKey {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == text).ok_or_else(|| text.to_owned()))
    }
}

/// A list of values of one kind, at most `max`.
pub(crate) struct List<R, F> {
    pub(crate) max: usize,
    pub(crate) make: F,
    pub(crate) kind: PhantomData<R>,
}

impl<R, F: Fn() -> R> List<R, F> {
    pub(crate) const fn new(max: usize, make: F) -> Self {
        Self { max, make, kind: PhantomData }
    }
}

impl<'de, R: Read<'de>, F: Fn() -> R> Read<'de> for List<R, F> {
    type Value = Vec<R::Value>;
    const EXPECTED: &'static str = "a list";

    fn list<A: SeqAccess<'de>>(
        self,
        mut items: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        let mut values = Vec::new();
        let mut index = 0;
        while index < self.max {
            let path = Path::Index(at.path, index);
            let seed = Seed { read: (self.make)(), at: at.below(&path), nullable: false };
            match items.next_element_seed(seed)? {
                Some(value) => values.extend(value),
                None => return Ok(Some(values)),
            }
            index += 1;
        }
        let mut more = 0_usize;
        while items.next_element::<IgnoredAny>()?.is_some() {
            more += 1;
        }
        if more > 0 {
            at.note(
                code::TOO_MANY,
                format_args!("has {} entries, allowed are {}", self.max + more, self.max),
            );
        }
        Ok(Some(values))
    }
}

/// A list as [`List`], or one value without the brackets.
pub(crate) struct OneOrList<R, F>(pub(crate) List<R, F>);

impl<'de, R: Read<'de>, F: Fn() -> R> Read<'de> for OneOrList<R, F> {
    type Value = Vec<R::Value>;
    const EXPECTED: &'static str = R::EXPECTED;

    fn string(self, text: &str, at: At<'_>) -> Option<Self::Value> {
        (self.0.make)().string(text, at).map(|value| vec![value])
    }

    fn integer(self, number: i128, at: At<'_>) -> Option<Self::Value> {
        (self.0.make)().integer(number, at).map(|value| vec![value])
    }

    fn list<A: SeqAccess<'de>>(
        self,
        items: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        self.0.list(items, at)
    }

    fn object<A: MapAccess<'de>>(
        self,
        entries: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        Ok((self.0.make)().object(entries, at)?.map(|value| vec![value]))
    }
}
