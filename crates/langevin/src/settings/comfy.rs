//! What ComfyUI writes into pictures: its graph of nodes, from which the usual ones are read.

use std::collections::BTreeSet;

use serde_json::Value;

/// The facts of a graph (`prompt`, nodes by number with `class_type` and `inputs`): each sampler's, and the models that are loaded.
pub(super) fn facts(graph: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let Some(nodes) = graph.as_object() else {
        return facts;
    };
    let mut say = |name: &str, value: String| {
        let fact = (name.to_owned(), value);
        if !fact.1.is_empty() && !facts.contains(&fact) {
            facts.push(fact);
        }
    };
    for node in nodes.values() {
        let inputs = &node["inputs"];
        match node["class_type"].as_str().unwrap_or_default() {
            "KSampler" | "KSamplerAdvanced" => {
                for (input, name) in [("positive", "Prompt"), ("negative", "Negative prompt")] {
                    say(
                        name,
                        text(graph, &inputs[input], &mut BTreeSet::new()).unwrap_or_default(),
                    );
                }
                let settings = [
                    ("steps", "Steps"),
                    ("sampler_name", "Sampler"),
                    ("scheduler", "Schedule type"),
                    ("cfg", "CFG scale"),
                    ("seed", "Seed"),
                    ("noise_seed", "Seed"),
                    ("denoise", "Denoising strength"),
                ];
                for (input, name) in settings {
                    say(name, shown(&inputs[input]));
                }
            }
            "EmptyLatentImage" => {
                let (width, height) = (shown(&inputs["width"]), shown(&inputs["height"]));
                if !width.is_empty() && !height.is_empty() {
                    say("Size", format!("{width}x{height}"));
                }
            }
            "LoraLoader" | "LoraLoaderModelOnly" => {
                say(
                    "LoRA",
                    format!(
                        "{} at {}",
                        shown(&inputs["lora_name"]),
                        shown(&inputs["strength_model"])
                    ),
                );
            }
            _ => {}
        }
        for (input, name) in [
            ("ckpt_name", "Model"),
            ("vae_name", "VAE"),
            ("control_net_name", "ControlNet"),
        ] {
            say(name, shown(&inputs[input]));
        }
    }
    facts
}

/// A number or a text; nothing of a link to another node.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// The text that a link leads to, through as many nodes as are between; no node is asked twice.
fn text(graph: &Value, link: &Value, asked: &mut BTreeSet<String>) -> Option<String> {
    let number = link.get(0)?.as_str()?;
    if !asked.insert(number.to_owned()) {
        return None;
    }
    let inputs = graph[number]["inputs"].as_object()?;
    let own = ["text", "text_g", "string", "value"]
        .into_iter()
        .find_map(|name| inputs.get(name));
    match own {
        Some(Value::String(text)) => Some(text.clone()),
        Some(further) => text(graph, further, asked),
        None => inputs.values().find_map(|further| text(graph, further, asked)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_usual_nodes_are_read() {
        let graph = json!({
            "3": {"class_type": "KSampler", "inputs": {
                "seed": 156680208700286_u64, "steps": 20, "cfg": 8, "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
                "model": ["4", 0], "positive": ["10", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
            "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a glass bottle", "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "text, watermark", "clip": ["4", 1]}},
            "10": {"class_type": "ControlNetApply", "inputs": {"conditioning": ["6", 0], "strength": 1}},
        });
        let facts = facts(&graph);
        let get = |name: &str| {
            facts
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(get("Prompt"), Some("a glass bottle"));
        assert_eq!(get("Negative prompt"), Some("text, watermark"));
        assert_eq!(
            (get("Seed"), get("Size"), get("Model")),
            (Some("156680208700286"), Some("512x768"), Some("v1-5.safetensors"))
        );
    }

    #[test]
    fn circles_and_nonsense_end() {
        let graph = json!({"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "negative": 3}}});
        assert!(facts(&graph).is_empty());
        assert!(facts(&json!([1, 2])).is_empty() && facts(&json!({"1": 2})).is_empty());
    }
}
