//! A reader of Python's pickles that runs nothing.
//!
//! A pickle is a program for a small machine with a stack. Python's own machine imports and calls whatever the program
//! names, so that a checkpoint from a stranger can do anything. This one knows the instructions that `torch.save`
//! writes a state dict with, and the few names that [`Global`] lists, and what it makes are plain values. Any other name, and whatever a
//! call of it would make, is a [`Value::Unknown`]: nothing is imported or called, and whoever needs that value refuses it by its name. So
//! what trainers leave beside a state dict (their own classes, numbers of numpy, the state of an optimiser) is no obstacle.
//!
//! Containers lie in one flat list and are referred to by their number there: a pickle that nests them a million deep
//! costs a million entries and no recursion, and one that puts a list into itself is no cycle.

use std::{collections::HashMap, sync::Arc};

use super::rebuild::{self, Global, StorageRef, TensorRef};

/// The most instructions of a pickle: many times what the largest models' state dicts take, about forty a tensor.
const LIMIT: usize = 2_000_000;

/// What a pickle can hold here.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// No number with a fraction means anything in a state dict.
    Float,
    Text(Arc<str>),
    /// These three with the number of their items in [`Pickle::items`]; a dict's are key, value, key, value …
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(Arc<StorageRef>),
    Tensor(Arc<TensorRef>),
    /// A Python object of this name, or what Python would have made by it; it was not.
    Unknown(Arc<str>),
}

/// A pickle that was read: its value, the items of all containers, and the storages that it refers to.
#[derive(Debug)]
pub(super) struct Pickle {
    root: Value,
    containers: Vec<Vec<Value>>,
    storages: Vec<Arc<StorageRef>>,
}

impl Pickle {
    /// Reads the pickle that begins at `*at`, and moves `*at` behind it. The error is a part of a sentence, such as
    /// "ends in the middle".
    pub(super) fn read(bytes: &[u8], at: &mut usize) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: *at,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            containers: Vec::new(),
            storages: Vec::new(),
        };
        for _ in 0..LIMIT {
            if let Some(root) = machine.step()? {
                *at = machine.at;
                return Ok(Self {
                    root,
                    containers: machine.containers,
                    storages: machine.storages,
                });
            }
        }
        Err(format!("has a pickle of more than {LIMIT} instructions"))
    }

    /// The value.
    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// The items of a container; none of any other value.
    pub(super) fn items(&self, value: &Value) -> &[Value] {
        items(&self.containers, value)
    }

    /// Every storage that it refers to, for whatever tensor.
    pub(super) fn storages(&self) -> &[Arc<StorageRef>] {
        &self.storages
    }

    /// The value under a key of the dict `value`.
    pub(super) fn get(&self, value: &Value, key: &str) -> Option<&Value> {
        let (entries, _) = self.items(value).as_chunks::<2>();
        entries.iter().find_map(|[name, value]| match name {
            Value::Text(name) if &**name == key => Some(value),
            _ => None,
        })
    }
}

/// The items of a container among `containers`; none of any other value.
pub(super) fn items<'a>(containers: &'a [Vec<Value>], value: &Value) -> &'a [Value] {
    match value {
        Value::Tuple(number) | Value::List(number) | Value::Dict(number) => {
            containers.get(*number).map_or(&[], Vec::as_slice)
        }
        _ => &[],
    }
}

/// The machine between two instructions.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    containers: Vec<Vec<Value>>,
    storages: Vec<Arc<StorageRef>>,
}

impl<'a> Machine<'a> {
    /// Does one instruction. The pickle's value, if it was the last.
    fn step(&mut self) -> Result<Option<Value>, String> {
        let [code] = self.take()?;
        match code {
            b'.' => return self.pop().map(Some),
            // Protocol and frame concern those who read from a stream.
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => {
                let [byte] = self.take()?;
                self.stack.push(Value::Int(byte.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                self.take::<8>()?;
                self.stack.push(Value::Float);
            }
            0x8c | b'U' => {
                let [length] = self.take()?;
                self.text(length.into())?;
            }
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.take()?);
                self.text(length as usize)?;
            }
            b')' => self.push_container(Value::Tuple, Vec::new()),
            b']' => self.push_container(Value::List, Vec::new()),
            b'}' => self.push_container(Value::Dict, Vec::new()),
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(code - 0x84));
                let items = self.stack.split_off(from.ok_or(EMPTY)?);
                self.push_container(Value::Tuple, items);
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_container(Value::Tuple, items);
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_top(false, vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_top(false, items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_top(true, vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                if items.len() % 2 != 0 {
                    return Err("has a broken pickle: a key without a value".into());
                }
                self.extend_top(true, items)?;
            }
            b'q' => {
                let [number] = self.take()?;
                self.memoize(number.into())?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.take()?);
                self.memoize(number)?;
            }
            // At most as many entries as there are instructions, which are limited.
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'h' => {
                let [number] = self.take()?;
                self.recall(number.into())?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.take()?);
                self.recall(number)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(rebuild::named(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("has a broken pickle: a name that is not text".into());
                };
                self.stack.push(rebuild::named(&module, &name));
            }
            b'Q' => self.refer()?,
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, &arguments)?;
            }
            // An object of a class, which is made without a call of its constructor.
            0x81 => {
                let (_arguments, class) = (self.pop()?, self.pop()?);
                match class {
                    Value::Unknown(_) => self.stack.push(class),
                    Value::Global(Global::ParameterDict) => self.push_container(Value::Dict, Vec::new()),
                    _ => return Err(refused(code)),
                }
            }
            // Attributes of an object: of an ordered dict those that PyTorch hangs on it, the versions of its layers; of a dict of
            // parameters its entries too.
            b'b' => {
                let attributes = self.pop()?;
                match self.stack.last() {
                    Some(Value::Dict(number)) if self.containers[*number].is_empty() => {
                        // Not copied: a pickle could ask for that again and again.
                        if let Some(entries) = self.attribute(&attributes, "_parameters") {
                            self.pop()?;
                            self.stack.push(entries);
                        }
                    }
                    Some(Value::Dict(_) | Value::Unknown(_)) => {}
                    _ => return Err("has a pickle that sets attributes of what is no dict".into()),
                }
            }
            other => return Err(refused(other)),
        }
        Ok(None)
    }

    /// The dict that is an attribute of this name.
    fn attribute(&self, attributes: &Value, name: &str) -> Option<Value> {
        let (entries, _) = items(&self.containers, attributes).as_chunks::<2>();
        entries.iter().find_map(|[key, value]| match (key, value) {
            (Value::Text(key), Value::Dict(_)) if &**key == name => Some(value.clone()),
            _ => None,
        })
    }

    /// Puts the storage that the top of the stack refers to in its place.
    fn refer(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let id = items(&self.containers, &id);
        if let [_, unknown @ Value::Unknown(_), ..] = id {
            self.stack.push(unknown.clone());
            return Ok(());
        }
        let storage = Arc::new(StorageRef::of(id, &self.containers)?);
        self.storages.push(storage.clone());
        self.stack.push(Value::Storage(storage));
        Ok(())
    }

    /// Puts on the stack what a call gives.
    fn call(&mut self, callable: Value, arguments: &Value) -> Result<(), String> {
        let arguments = items(&self.containers, arguments);
        let value = match callable {
            Value::Global(Global::OrderedDict) if arguments.is_empty() => {
                self.push_container(Value::Dict, Vec::new());
                return Ok(());
            }
            Value::Global(function) => function.call(arguments, &self.containers)?,
            Value::Unknown(_) => callable,
            _ => return Err("has a pickle that calls what is no function".into()),
        };
        self.stack.push(value);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.first_chunk::<N>().ok_or(TRUNCATED)?;
        self.at += N;
        Ok(*taken)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or(TRUNCATED)?;
        self.at += length;
        Ok(taken)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.slice(length)?)
            .map_err(|_| "has a broken pickle: text that is not UTF-8")?;
        let text = Value::Text(text.into());
        self.stack.push(text);
        Ok(())
    }

    /// The rest of a line of ASCII, as old instructions have it.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(TRUNCATED)?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length])
            .map_err(|_| "has a broken pickle: a name that is not UTF-8".into())
    }

    /// An integer of any length, of which those of up to eight bytes mean something.
    fn long(&mut self) -> Result<(), String> {
        let [length] = self.take()?;
        let bytes = self.slice(length.into())?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        let target = word
            .get_mut(..bytes.len())
            .ok_or("has a pickle with an integer of more than 64 bits")?;
        target.copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(word)));
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or(EMPTY)?))
    }

    fn push_container(&mut self, kind: fn(usize) -> Value, items: Vec<Value>) {
        self.stack.push(kind(self.containers.len()));
        self.containers.push(items);
    }

    /// Adds items to the list, or entries to the dict, on top of the stack.
    fn extend_top(&mut self, to_dict: bool, items: Vec<Value>) -> Result<(), String> {
        let number = match self.stack.last() {
            Some(Value::List(number)) if !to_dict => *number,
            Some(Value::Dict(number)) if to_dict => *number,
            // An object that is also a list or a dict.
            Some(Value::Unknown(_)) => return Ok(()),
            _ => return Err("has a broken pickle: items without a list or a dict".into()),
        };
        self.containers[number].extend(items);
        Ok(())
    }

    fn memoize(&mut self, number: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or(EMPTY)?.clone();
        self.memo.insert(number, value);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<(), String> {
        let value = self
            .memo
            .get(&number)
            .ok_or("has a broken pickle: it recalls what it did not keep")?;
        self.stack.push(value.clone());
        Ok(())
    }
}

const TRUNCATED: &str = "ends in the middle of its pickle";
const EMPTY: &str = "has a broken pickle: it takes more from its stack than is there";

/// Why an instruction is not done. Its name is Python's.
fn refused(code: u8) -> String {
    let name = match code {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ of a known name",
        0x92 => "NEWOBJ_EX",
        b'P' => "PERSID",
        0x82..=0x84 => "EXT",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'd' => "DICT",
        b'l' => "LIST",
        b'g' => "GET",
        b'p' => "PUT",
        0x8b => "LONG4",
        0x8d => "BINUNICODE8",
        b'B' | b'C' | 0x8e => "BINBYTES",
        0x8f..=0x91 => "of sets",
        0x96..=0x98 => "of buffers",
        _ => return format!("has a broken pickle: the byte {code:#04x} is no instruction"),
    };
    format!("has a pickle with the instruction {name}, which a state dict does not need")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle, String> {
        Pickle::read(bytes, &mut 0)
    }

    #[test]
    fn plain_values_are_read() {
        // pickle.dumps({"a": (1, -2, 300, None, True), "b": [2.5, "é"]}, protocol=2)
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01(K\x01J\xfe\xff\xff\xffM,\x01N\x88tq\x02X\x01\x00\x00\x00bq\x03]q\x04(G@\x04\x00\x00\x00\x00\x00\x00X\x02\x00\x00\x00\xc3\xa9q\x05eu.";
        let mut at = 0;
        let pickle = Pickle::read(bytes, &mut at).unwrap();
        assert_eq!(at, bytes.len());
        let tuple = pickle.items(pickle.get(pickle.root(), "a").unwrap());
        assert!(matches!(
            tuple,
            [
                Value::Int(1),
                Value::Int(-2),
                Value::Int(300),
                Value::None,
                Value::Bool(true)
            ]
        ));
        let list = pickle.items(pickle.get(pickle.root(), "b").unwrap());
        assert!(matches!(list, [Value::Float, Value::Text(text)] if &**text == "é"));
    }

    #[test]
    fn a_newer_protocol_is_read() {
        // pickle.dumps([1, "a"], protocol=4)
        let bytes = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01\x8c\x01a\x94e.";
        let pickle = read(bytes).unwrap();
        assert!(matches!(
            pickle.items(pickle.root()),
            [Value::Int(1), Value::Text(_)]
        ));
    }

    #[test]
    fn every_prefix_is_refused() {
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01(K\x01J\xfe\xff\xff\xffM,\x01N\x88tq\x02u.";
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_call_gives_nothing_but_its_name() {
        // pickle.dumps of an object whose __reduce__ is (os.system, ("echo ran",)), in both ways to write a name.
        let old = b"\x80\x02cposix\nsystem\nq\x00X\x08\x00\x00\x00echo ranq\x01\x85q\x02Rq\x03.";
        let new = b"\x80\x04\x95\x23\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x08echo ran\x94\x85\x94R\x94.";
        for bytes in [&old[..], &new[..]] {
            let pickle = read(bytes).unwrap();
            assert!(matches!(pickle.root(), Value::Unknown(name) if &**name == "posix.system"));
        }
        // An object of a class with attributes, items and entries.
        let object = b"cwhatever\nClass\n)\x81}bK\x01aX\x01\x00\x00\x00aNs.";
        assert!(matches!(read(object).unwrap().root(), Value::Unknown(name) if &**name == "whatever.Class"));
        // (i is INST: it calls without REDUCE.
        let message = read(b"(X\x02\x00\x00\x00lsios\nsystem\n.").unwrap_err();
        assert!(message.contains("INST"), "{message}");
    }

    #[test]
    fn lies_cost_nothing() {
        // Text of four gigabytes, of which one byte is there.
        assert!(
            read(b"X\xff\xff\xff\xffa.")
                .unwrap_err()
                .contains("ends in the middle")
        );
        // Lists in lists, as many as instructions are allowed; and one in itself.
        let mut deep = vec![b']'; LIMIT / 2 - 1];
        deep.extend(vec![b'a'; LIMIT / 2 - 2]);
        deep.push(b'.');
        assert!(read(&deep).is_ok());
        assert!(read(&vec![b']'; LIMIT + 1]).unwrap_err().contains("instructions"));
        assert!(read(b"]q\x00h\x00a.").is_ok());
        for broken in [
            &b"."[..],
            b"a.",
            b"e.",
            b"(.",
            b"\x85.",
            b"R.",
            b"b.",
            b"Q.",
            b"NQ.",
            b"h\x05.",
            b"q\x00.",
            b"}(Nu.",
            b"N(NNu.",
            b"\x93.",
            b"NN\x93.",
            b"NNR.",
            b"NNb.",
            b"\x8a\x09aaaaaaaaa.",
            b"\xff.",
        ] {
            assert!(read(broken).is_err(), "{broken:?}");
        }
    }
}
