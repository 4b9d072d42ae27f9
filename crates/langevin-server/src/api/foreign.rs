//! What the requests of other programs' APIs have in common: fields that mean a field here, fields that mean nothing where they have their usual
//! value, and fields that cannot be had, which are refused by their names.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// Names of fields: ours and theirs.
pub(super) type Names = Vec<(&'static str, &'static str)>;

/// The fields of a foreign request that nobody has looked at yet, and those of ours that came of the others.
#[derive(Debug)]
pub(super) struct Translation {
    given: Map<String, Value>,
    pub(super) fields: Map<String, Value>,
    names: Names,
}

impl Translation {
    pub(super) fn new(mut given: Map<String, Value>) -> Self {
        given.retain(|_, value| !value.is_null());
        Self {
            given,
            fields: Map::new(),
            names: Vec::new(),
        }
    }

    /// The value of a field, which then counts as looked at.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.given.remove(name)
    }

    /// Whether a field that nobody has looked at asks for something.
    pub(super) fn asks(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|value| !is_nothing(value))
    }

    /// A field of theirs that is one of ours, as it is.
    pub(super) fn field(&mut self, theirs: &'static str, ours: &'static str) {
        if let Some(value) = self.take(theirs) {
            self.put(theirs, ours, value);
        }
    }

    /// A text of theirs that is one of ours, unless it is empty.
    pub(super) fn text(&mut self, theirs: &'static str, ours: &'static str) {
        if let Some(value) = self.take(theirs).filter(|value| value != "") {
            self.put(theirs, ours, value);
        }
    }

    /// A field of ours that came of one of theirs.
    pub(super) fn put(&mut self, theirs: &'static str, ours: &'static str, value: Value) {
        self.names.push((ours, theirs));
        self.fields.insert(ours.into(), value);
    }

    /// Fields that are called as ours are.
    pub(super) fn take_ours(&mut self, is_ours: impl Fn(&str) -> bool) {
        let ours: Vec<String> = self.given.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in ours {
            if let Some(value) = self.take(&name) {
                self.fields.insert(name, value);
            }
        }
    }

    /// Fields that change nothing here, whatever they are.
    pub(super) fn pass(&mut self, names: &[&str]) {
        for name in names {
            self.given.remove(*name);
        }
    }

    /// Passes a field that has this value, in which it changes nothing.
    pub(super) fn pass_as(&mut self, name: &str, values: &[Value]) {
        if self.given.get(name).is_some_and(|value| values.contains(value)) {
            self.given.remove(name);
        }
    }

    /// Passes fields whose names begin so.
    pub(super) fn pass_all_of(&mut self, prefix: &str) {
        self.given.retain(|name, _| !name.starts_with(prefix));
    }

    /// Our fields, once all of theirs were looked at or are empty.
    ///
    /// # Errors
    /// If there is one that cannot be had.
    pub(super) fn end(self) -> Result<Map<String, Value>, Refusal> {
        match self.given.iter().find(|(_, value)| !is_nothing(value)) {
            Some((name, value)) => Err(refused(name, value)),
            None => Ok(self.fields),
        }
    }

    /// What a field of ours was called by whoever sent it.
    pub(super) fn names(&self) -> Names {
        self.names.clone()
    }
}

/// A value that asks for nothing.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number
            .as_f64()
            .is_some_and(|number| number == 0.0 || number == -1.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

/// A field that cannot be had.
pub(super) fn refused(name: &str, value: &Value) -> Refusal {
    let name: String = name.chars().take(60).collect();
    let shown: String = value.to_string().chars().take(60).collect();
    Refusal::unprocessable(format!(
        "`{name}` as {shown} is not there on this server: leave it out"
    ))
    .with_field(name)
}
