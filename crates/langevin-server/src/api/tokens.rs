//! `GET /api/tokens`: how many tokens a text has, and where its chunks end.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Extension, Query, State, rejection::QueryRejection},
};
use langevin::{
    conditioning::{PromptSyntax, TextChunk, TextCondition},
    named::Named,
    options::take_loras,
};
use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Caller},
    refusal::Refusal,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    model: Option<String>,
    text: String,
    syntax: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Tokens {
    /// What goes through the text encoder together.
    chunks: Vec<TextChunk>,
    /// How many tokens a chunk has room for.
    room: usize,
    /// What of the text the model does not see, since it is cut; null where it sees all.
    unseen: Option<String>,
}

pub(super) async fn tokens(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Tokens>, Refusal> {
    let Query(asked) =
        asked.map_err(|error| Refusal::unprocessable(error.body_text()).with_field("query"))?;
    let number = app.models.number(asked.model.as_deref())?;
    let most = app.options.limits.text;
    if asked.text.chars().count() > most {
        return Err(Refusal::beyond("text", asked.text.chars().count(), most as u64));
    }
    let model = app.lease(number, caller).await?;
    let text = model.pipeline.condition::<TextCondition>();
    let text =
        text.ok_or_else(|| Refusal::unprocessable("this model looks at no texts").with_field("model"))?;
    let syntax = match asked.syntax.as_deref() {
        None | Some("") => PromptSyntax::Plain,
        Some(name) => PromptSyntax::from_name(name)
            .map_err(|error| Refusal::from(error).or_field(std::iter::empty(), "syntax"))?,
    };
    // What a LoRA is named by is no text; a tag that cannot be read is said where it is drawn with.
    let plain = take_loras(&asked.text).map_or(asked.text, |(plain, _)| plain);
    let unseen = match syntax {
        PromptSyntax::Plain => text.unseen(&plain)?,
        _ => None,
    };
    Ok(Json(Tokens {
        chunks: text.chunks(&plain, syntax)?,
        room: text.tokenizer().length() - 2,
        unseen,
    }))
}
