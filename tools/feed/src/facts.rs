//! Facts as people write them: a transaction in JSON, entities and values in text, and back.
//!
//! ```text
//!   {"partition":"main","ops":[                              or the array of ops alone: partition main
//!     {"op":"assert","e":"?ann","a":"person/email","v":"ann@example.org"},
//!     {"op":"retract","e":":person/bob","a":"person/age"},   "v" may say which value
//!     {"op":"retract-entity","e":"3476778912330022913"},
//!     {"op":"compare-and-set","e":["person/email","b@x.org"],"a":"person/age","expected":40,"new":41}]}
//!
//!   entity    decimal id | ?name: a tempid | :name: a db/ident | [attribute, value]: a lookup | "tx": the transaction
//!   value     true, 40 (i64), 40.5 (f64), "text" (string), or what it is by name: {"keyword":"db.x"} {"instant":"2026-01-05T10:00:00Z"}
//!             {"decimal":"1.50"} {"uuid":".."} {"bytes":"hex"} {"vector":[1,2]} {"ref": entity} {"i64":"7"} {"f64":"inf"}
//! ```
//! Invariants: what is said is read again as the same value, given its type's name; keys that nobody knows are refused.
//! Deliberately absent: the schema, so a number is what it is written as.

use myelin_datom::{
    AttributeName, Decimal, Entity, EntityId, Floats, Given, MarketName, Op, Transaction, Value, ValueType,
};
use serde_json::{Map, Value as Json, json};

/// What cannot be read, and in which op.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FactsError {
    /// The op, from 0; none outside of ops.
    pub op: Option<usize>,
    /// What was expected.
    pub message: String,
}

impl std::fmt::Display for FactsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.op {
            Some(op) => write!(f, "op {op}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

fn expected<T>(message: impl Into<String>) -> Result<T, FactsError> {
    Err(FactsError { op: None, message: message.into() })
}

const A_TRANSACTION: &str = "a transaction is {\"ops\":[..]}, or the array of ops alone, as in \
                             [{\"op\":\"assert\",\"e\":\"?new\",\"a\":\"db/ident\",\"v\":{\"keyword\":\"desk/btc\"}}]";

/// Reads a transaction. **Errors:** with the op that cannot be read.
pub fn transaction(bytes: &[u8]) -> Result<Transaction<'static>, FactsError> {
    let read: Json = match serde_json::from_slice(bytes) {
        Ok(read) => read,
        Err(error) => return expected(format!("this is no JSON: {error}")),
    };
    let (partition, ops) = match read {
        Json::Array(ops) => ("main".to_owned(), ops),
        Json::Object(mut keys) => {
            let partition = match keys.remove("partition") {
                None => "main".to_owned(),
                Some(Json::String(name)) => name,
                Some(_) => return expected("\"partition\" is a name"),
            };
            let ops = match keys.remove("ops") {
                Some(Json::Array(ops)) => ops,
                Some(_) => return expected("\"ops\" is an array of ops"),
                None => return expected(A_TRANSACTION),
            };
            nothing_left(&keys)?;
            (partition, ops)
        }
        _ => return expected(A_TRANSACTION),
    };
    if let Err(error) = MarketName::new(&partition) {
        return expected(error.to_string().replace("market", "partition's"));
    }
    let read = |(n, one): (usize, &Json)| op(one).map_err(|error| FactsError { op: Some(n), ..error });
    let ops = ops.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Transaction { partition: partition.into(), ops })
}

fn nothing_left(keys: &Map<String, Json>) -> Result<(), FactsError> {
    keys.keys().next().map_or(Ok(()), |key| expected(format!("\"{key}\" is not known here")))
}

fn op(one: &Json) -> Result<Op<'static>, FactsError> {
    let Json::Object(keys) = one else { return expected("an op is an object") };
    let mut keys = keys.clone();
    let kind = match keys.remove("op") {
        Some(Json::String(kind)) => kind,
        _ => return expected("\"op\" is assert, retract, retract-entity or compare-and-set"),
    };
    let e = match keys.remove("e") {
        Some(e) => entity_of(&e)?,
        None => return expected("\"e\" says which entity"),
    };
    let a = |keys: &mut Map<String, Json>| match keys.remove("a") {
        Some(a) => attribute_of(&a),
        None => expected("\"a\" says which attribute"),
    };
    let maybe = |keys: &mut Map<String, Json>, key: &str| match keys.remove(key) {
        None | Some(Json::Null) => Ok(None),
        Some(v) => given(&v).map(Some),
    };
    let op = match kind.as_str() {
        "assert" => {
            let a = a(&mut keys)?;
            match maybe(&mut keys, "v")? {
                Some(v) => Op::Assert { e, a, v },
                None => return expected("\"v\" says what holds"),
            }
        }
        "retract" => Op::Retract { e, a: a(&mut keys)?, v: maybe(&mut keys, "v")? },
        "retract-entity" => Op::RetractEntity { e },
        "compare-and-set" => {
            let a = a(&mut keys)?;
            Op::CompareAndSet { e, a, expected: maybe(&mut keys, "expected")?, new: maybe(&mut keys, "new")? }
        }
        other => return expected(format!("'{other}' is no op: assert, retract, retract-entity or compare-and-set")),
    };
    nothing_left(&keys)?;
    Ok(op)
}

/// Reads an entity as people write it; a lookup as JSON.
pub fn entity(text: &str) -> Result<Entity<'static>, FactsError> {
    if text.starts_with('[') {
        return match serde_json::from_str(text) {
            Ok(read) => entity_of(&read),
            Err(error) => expected(format!("'{text}' is no lookup: {error}")),
        };
    }
    entity_of(&Json::String(text.to_owned()))
}

/// Reads an attribute as people write it: an ident or an id.
pub fn attribute(text: &str) -> Result<AttributeName<'static>, FactsError> {
    attribute_of(&Json::String(text.to_owned()))
}

/// Reads a value as people write it: JSON where it is some, else a string.
pub fn value(text: &str) -> Result<Value<'static>, FactsError> {
    let read = serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()));
    value_of(&read)
}

fn entity_of(one: &Json) -> Result<Entity<'static>, FactsError> {
    let message = "an entity is a decimal id, \"?tempid\", \":ident\", [attribute, value] or \"tx\"";
    match one {
        Json::Number(number) => match number.as_u64().filter(|bits| *bits != 0) {
            Some(bits) => Ok(Entity::Id(EntityId::from_bits(bits))),
            None => expected(message),
        },
        Json::String(text) => match (text.as_bytes().first(), text.parse::<u64>()) {
            (_, Ok(bits)) if bits != 0 => Ok(Entity::Id(EntityId::from_bits(bits))),
            (Some(b'?'), _) if text.len() > 1 => Ok(Entity::Temp(text[1..].to_owned().into())),
            (Some(b':'), _) if text.len() > 1 => Ok(Entity::Ident(text[1..].to_owned().into())),
            _ if text == "tx" => Ok(Entity::ThisTx),
            _ => expected(message),
        },
        Json::Array(pair) => match pair.as_slice() {
            [a, v] => Ok(Entity::Lookup(attribute_of(a)?, value_of(v)?)),
            _ => expected(message),
        },
        _ => expected(message),
    }
}

fn attribute_of(one: &Json) -> Result<AttributeName<'static>, FactsError> {
    match one {
        Json::String(text) => Ok(match text.parse() {
            Ok(bits) => AttributeName::Id(EntityId::from_bits(bits)),
            Err(_) => AttributeName::Ident(text.strip_prefix(':').unwrap_or(text).to_owned().into()),
        }),
        _ => expected("an attribute is its ident, as in \"person/name\", or its decimal id in quotes"),
    }
}

fn given(one: &Json) -> Result<Given<'static>, FactsError> {
    if let Json::Object(keys) = one
        && let Some(target) = keys.get("ref").filter(|_| keys.len() == 1)
    {
        return entity_of(target).map(Given::Entity);
    }
    value_of(one).map(Given::Value)
}

fn value_of(one: &Json) -> Result<Value<'static>, FactsError> {
    let value = match one {
        Json::Bool(value) => Value::Bool(*value),
        Json::String(text) => Value::String(text.clone().into()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::I64(whole),
            (None, Some(float)) if number.is_f64() => Value::F64(float + 0.0),
            _ => return expected("a whole number beyond i64 is written as {\"decimal\":\"..\"}"),
        },
        Json::Object(keys) if keys.len() == 1 => match keys.iter().next() {
            Some((name, inner)) => typed(name, inner)?,
            None => return expected("a value"),
        },
        _ => {
            return expected(
                "a value is true, 40, 40.5, \"text\", or an object of one type, as in {\"keyword\":\"a/b\"}",
            );
        }
    };
    value.flaw().map_or(Ok(value), |flaw| expected(flaw.as_str()))
}

/// A value whose type is named.
fn typed(name: &str, inner: &Json) -> Result<Value<'static>, FactsError> {
    let text = match inner {
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        Json::Bool(value) => value.to_string(),
        _ => String::new(),
    };
    let wrong = || FactsError { op: None, message: format!("{inner} is no {name}") };
    Ok(match ValueType::from_name(name) {
        Some(ValueType::Bool) => Value::Bool(text.parse().map_err(|_| wrong())?),
        Some(ValueType::I64) => Value::I64(text.parse().map_err(|_| wrong())?),
        // Adding zero makes -0.0 the one zero there is.
        Some(ValueType::F64) => Value::F64(text.parse::<f64>().map_err(|_| wrong())? + 0.0),
        Some(ValueType::String) => Value::String(text.into()),
        Some(ValueType::Keyword) => Value::Keyword(text.strip_prefix(':').unwrap_or(&text).to_owned().into()),
        Some(ValueType::Bytes) => Value::Bytes(hex(&text).ok_or_else(wrong)?.into()),
        Some(ValueType::Instant) => {
            let instant: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
            Value::Instant(i64::try_from(instant.as_nanosecond()).map_err(|_| wrong())?)
        }
        Some(ValueType::Uuid) => {
            let digits = text.replace('-', "");
            let sound = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let uuid = u128::from_str_radix(&digits, 16).ok().filter(|_| sound);
            Value::Uuid(uuid.ok_or_else(wrong)?)
        }
        Some(ValueType::Decimal) => Value::Decimal(text.parse::<Decimal>().map_err(|_| wrong())?),
        Some(ValueType::Ref) => Value::Ref(EntityId::from_bits(text.parse().map_err(|_| wrong())?)),
        Some(ValueType::Vector) => {
            let numbers = inner.as_array().ok_or_else(wrong)?;
            let floats: Option<Vec<f32>> = numbers.iter().map(|one| one.as_f64().map(|float| float as f32)).collect();
            Value::Vector(Floats::of(&floats.ok_or_else(wrong)?))
        }
        None => return expected(format!("'{name}' is no type of value")),
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// Says a value as JSON: ids, decimals and uuids as strings; an infinity, which JSON has not, as a string.
#[must_use]
pub fn say(value: &Value<'_>) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::F64(value) if value.is_finite() => json!(value),
        Value::F64(value) => json!(value.to_string()),
        Value::String(text) | Value::Keyword(text) => json!(text),
        Value::Bytes(bytes) => json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::Instant(ns) => match jiff::Timestamp::from_nanosecond(i128::from(*ns)) {
            Ok(instant) => json!(instant.to_string()),
            Err(_) => json!(ns.to_string()),
        },
        Value::Uuid(uuid) => {
            let digits = format!("{uuid:032x}");
            let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            json!(parts.join("-"))
        }
        Value::Decimal(number) => json!(number.to_string()),
        Value::Ref(entity) => json!(entity.to_string()),
        Value::Vector(floats) => json!(floats.iter().collect::<Vec<f32>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again_as_the_same_value() {
        for value in [
            Value::Bool(true),
            Value::I64(i64::MIN),
            Value::F64(0.1),
            Value::F64(f64::NEG_INFINITY),
            Value::string("a \"b\""),
            Value::keyword("a/b"),
            Value::Bytes(vec![0, 255].into()),
            Value::Instant(1_767_607_200_000_000_001),
            Value::Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            Value::Decimal("-12.5".parse().unwrap()),
            Value::Ref(EntityId::from_bits(3_476_778_912_330_022_913)),
            Value::Vector(Floats::of(&[0.5, -1.25])),
        ] {
            let said = json!({ value.value_type().name(): say(&value) });
            assert_eq!(value_of(&said), Ok(value), "{said}");
        }
    }

    #[test]
    fn every_form_of_op_entity_and_value_is_read() {
        let text = r#"{"partition":"people","ops":[
            {"op":"assert","e":"?ann","a":"person/name","v":"Ann"},
            {"op":"assert","e":7,"a":":person/best","v":{"ref":"?ann"}},
            {"op":"retract","e":":bob","a":"9","v":-0.0},
            {"op":"retract","e":"tx","a":"x"},
            {"op":"retract-entity","e":["person/email",{"keyword":":k"}]},
            {"op":"compare-and-set","e":"8","a":"n","expected":null,"new":41}]}"#;
        let read = transaction(text.as_bytes()).unwrap();
        assert_eq!(read.partition, "people");
        let ident = |name: &'static str| AttributeName::ident(name);
        let id = |bits| Entity::Id(EntityId::from_bits(bits));
        let expected = [
            Op::Assert { e: Entity::temp("ann"), a: ident("person/name"), v: Given::Value(Value::string("Ann")) },
            Op::Assert { e: id(7), a: ident("person/best"), v: Given::Entity(Entity::temp("ann")) },
            Op::Retract {
                e: Entity::Ident("bob".into()),
                a: AttributeName::Id(EntityId::from_bits(9)),
                v: Some(Given::Value(Value::F64(0.0))),
            },
            Op::Retract { e: Entity::ThisTx, a: ident("x"), v: None },
            Op::RetractEntity { e: Entity::Lookup(ident("person/email"), Value::keyword("k")) },
            Op::CompareAndSet { e: id(8), a: ident("n"), expected: None, new: Some(Given::Value(Value::I64(41))) },
        ];
        assert_eq!(read.ops, expected);
        let mut bytes = Vec::new();
        read.write(&mut bytes);
        assert!(Transaction::read(&bytes).is_ok());
        assert_eq!(transaction(b"[]").unwrap().partition, "main");
    }

    #[test]
    fn what_cannot_be_read_names_the_op_and_what_was_expected() {
        for (text, op) in [
            ("{", None),
            ("7", None),
            (r#"{"ops":[],"x":1}"#, None),
            (r#"{"ops":[],"partition":"a b"}"#, None),
            (r#"[{"op":"assert","e":"?a","a":"b","v":1},{"op":"assert","e":"a","a":"b","v":1}]"#, Some(1)),
            (r#"[{"op":"assert","e":"?a","a":"b"}]"#, Some(0)),
            (r#"[{"op":"assert","e":"?a","a":"b","v":{"i65":1}}]"#, Some(0)),
            (r#"[{"op":"assert","e":"?a","a":"b","v":{"uuid":"1"}}]"#, Some(0)),
            (r#"[{"op":"assert","e":"?a","a":"b","v":18446744073709551615}]"#, Some(0)),
            (r#"[{"op":"retract-entity","e":"?a","a":"b"}]"#, Some(0)),
            (r#"[{"op":"delete","e":"?a"}]"#, Some(0)),
        ] {
            assert_eq!(transaction(text.as_bytes()).unwrap_err().op, op, "{text}");
        }
        // One op alone is the commonest mistake, and "ops is an array" says nothing to who never wrote "ops".
        let one = transaction(br#"{"op":"assert","e":"?a","a":"b","v":1}"#).unwrap_err();
        assert!(one.message.starts_with("a transaction is {\"ops\":[..]}"), "{one}");
    }
}
