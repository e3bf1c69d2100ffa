//! Makes DataFusion's sentences readable.
//!
//! DataFusion reports wrong arguments as a list of internal errors with a request for a bug report, quotes the whole type
//! of a struct wherever it names one, and passes an error from a scan on as the text of a Rust value.

/// What DataFusion appends to the errors that it considers its own.
const BOILERPLATE: &str = "This issue was likely caused by a bug in DataFusion's code.";

/// How DataFusion begins the useful part of an error about arguments.
const NO_MATCH: &str = "No function matches the given name and argument types '";

/// What separates the arguments that were given from those that are possible.
const CANDIDATES: &str = "'. You might need to add explicit type casts.\n\tCandidate functions:\n\t";

/// `text`, an error from planning or execution, without what does not help its reader.
pub(crate) fn readable(text: &str) -> String {
    let text = without_children(text);
    if text.starts_with("array_element does not support type Struct") {
        return "a struct has no elements; write attributes['key'], with the key in single quotes".into();
    }
    let text = arguments(&text).unwrap_or(text);
    let text = text.split_once(BOILERPLATE).map_or(text.as_str(), |(useful, _)| useful);
    text.trim_start_matches("Internal error: ").trim_end().trim_end_matches('.').to_owned()
}

/// An error from converting a value, with what may have been meant.
pub(crate) fn with_cast_hint(text: &str) -> String {
    if text.starts_with("Cannot cast string '") {
        // A number on one side of a comparison makes a number of the text on the other side.
        format!("{text}; compare text with a quoted value such as '200', or convert it with TRY_CAST")
    } else {
        text.to_owned()
    }
}

/// The message inside the `Debug` text of DataFusion's `ArrowError`, which the Parquet scan makes of errors in predicates.
pub(crate) fn of_debugged_arrow(text: &str) -> Option<String> {
    let inner = text.strip_prefix("ArrowError(")?;
    if inner.starts_with("DivideByZero") {
        return Some("Divide by zero error".into());
    }
    let (_, message) = inner.split_once("(\"")?;
    // Behind it is the backtrace.
    let (message, _) = message.rsplit_once("\"), Some(").or_else(|| message.rsplit_once("\"), None"))?;
    Some(message.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// `function 'sum' does not take Utf8; ..` out of DataFusion's "No function matches".
fn arguments(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(NO_MATCH)?;
    let (given, candidates) = rest.split_once(CANDIDATES)?;
    let (function, types) = given.split_once('(')?;
    let problem = match types.strip_suffix(')')? {
        "" => "needs arguments".to_owned(),
        types => format!("does not take {types}"),
    };
    let candidates = candidates.split("\n\t").collect::<Vec<_>>().join(", ");
    Some(format!("function '{function}' {problem}; there is {candidates}"))
}

/// `text` with `Struct` instead of each `Struct("a": Int64, ..)`: a container has one child for each key in the workspace.
fn without_children(text: &str) -> String {
    const STRUCT: &str = "Struct(\"";
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.find(STRUCT).map(|at| rest.split_at(at)) {
        let open = STRUCT.len() - 2;
        let Some(close) = closing(&from[open..]) else { break };
        result.push_str(before);
        result.push_str(&from[..open]);
        rest = &from[open + close + 1..];
    }
    result + rest
}

/// Where the parenthesis that `text` begins with is closed; names are in double quotes and may contain parentheses.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn struct_types_are_cut_at_their_end() {
        let nested = "Struct(\"a)\\\"(\": Struct(\"b\": Timestamp(ns, \"UTC\")), \"c\": Utf8)";
        assert_eq!(without_children(&format!("f({nested}, Int64) of {nested}")), "f(Struct, Int64) of Struct");
        for text in ["Struct(\"a\": Int64", "a Struct(", "Struct()", ""] {
            assert_eq!(without_children(text), text);
        }
    }

    #[test]
    fn debugged_errors_are_unwrapped() {
        let text = r#"ArrowError(CastError("Cannot cast string 'a\"b\\' to value of Int64 type"), Some(""))"#;
        assert_eq!(of_debugged_arrow(text).as_deref(), Some(r#"Cannot cast string 'a"b\' to value of Int64 type"#));
        assert_eq!(of_debugged_arrow("ArrowError(DivideByZero, None)").as_deref(), Some("Divide by zero error"));
        assert_eq!(of_debugged_arrow("something else"), None);
    }
}
