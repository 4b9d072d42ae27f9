//! What is worth a word about a request that is drawn all the same.

use crate::{
    Request, Result,
    conditioning::{DistilledGuidance, PromptSyntax, SizeCondition, TextCondition, network_tags},
    options::SampleOptions,
    pipelines::Pipeline,
};

/// Leaves out what guidance would lead away from where a latent pipeline guides nothing, with a word.
pub(super) fn idle_negative(
    request: &Request,
    options: &mut SampleOptions,
    pipeline: &Pipeline,
) -> Option<String> {
    let given = !request.negative_prompt.is_empty() || !request.negative_prompt_2.is_empty();
    if !given || options.guidance.is_on() || pipeline.class().latent.is_none() {
        return None;
    }
    (options.negative_prompts, options.negative_second_prompts) = (None, None);
    let why = match pipeline.condition::<DistilledGuidance>() {
        Some(_) => "this model is given the guidance scale itself",
        None => "guidance is off at a scale of 1 or less",
    };
    Some(format!("the negative prompt has no effect: {why}"))
}

/// A word about negative sizes of which there is only a part.
pub(super) fn idle_sizes(request: &Request, pipeline: &Pipeline) -> Option<String> {
    let overlooked = pipeline.condition::<SizeCondition>()?.overlooks(request);
    overlooked.then(|| {
        "the negative sizes have no effect: both the negative original size and the negative target size must be given".into()
    })
}

/// A word about tags in prompts that nothing is done with.
pub(super) fn idle_networks(request: &Request) -> Option<String> {
    let texts = [
        &request.prompt,
        &request.negative_prompt,
        &request.prompt_2,
        &request.negative_prompt_2,
    ];
    let tag = texts
        .into_iter()
        .flatten()
        .find_map(|text| network_tags(text).next())?;
    Some(format!(
        "{} in the prompt is read as text: nothing is loaded for it",
        shortened(tag)
    ))
}

/// A word about learned words that prompts name, as ComfyUI has it, and that there are not.
pub(super) fn unknown_words(request: &Request, pipeline: &Pipeline) -> Option<String> {
    let condition = pipeline.condition::<TextCondition>()?;
    if request.prompt_syntax != PromptSyntax::Comfy {
        return None;
    }
    let texts = [
        &request.prompt,
        &request.negative_prompt,
        &request.prompt_2,
        &request.negative_prompt_2,
    ];
    let all = texts.into_iter().flatten();
    let mut names: Vec<&str> = all.flat_map(|text| condition.unknown_words(text)).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| {
        format!(
            "the prompt names learned words that are not here, and they are left out of it: {}",
            shortened(&names.join(", "))
        )
    })
}

/// What of the texts is too long to be seen.
pub(super) fn unseen(request: &Request, pipeline: &Pipeline) -> Result<Vec<String>> {
    let Some(condition) = pipeline.condition::<TextCondition>() else {
        return Ok(Vec::new());
    };
    if request.prompt_syntax != PromptSyntax::Plain {
        return Ok(Vec::new());
    }
    let first = request.prompt.iter().chain(&request.negative_prompt);
    let mut notices = Vec::new();
    for text in first.chain(&request.prompt_2).chain(&request.negative_prompt_2) {
        if let Some(rest) = condition.unseen(text)? {
            let notice = format!(
                "the text is longer than the model sees; it does not see: {}",
                shortened(&rest)
            );
            if !notices.contains(&notice) {
                notices.push(notice);
            }
        }
    }
    Ok(notices)
}

/// The beginning of a long text, and how many words follow.
pub(super) fn shortened(text: &str) -> String {
    const WORDS: usize = 30;
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() <= WORDS {
        return text.to_string();
    }
    format!(
        "{} … and {} more words",
        words[..WORDS].join(" "),
        words.len() - WORDS
    )
}
