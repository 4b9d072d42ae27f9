//! Prompts in the syntaxes of other programs: what a model is given for them, against each program's formula, and what is drawn.

mod support;

use burn::tensor::Tensor;
use langevin::{
    Pipeline, Request, Size,
    conditioning::{EmbeddingFile, Pair, PromptSyntax, TextCondition},
    generate::Plan,
    guidance::ClassifierFree,
    models::ClipTokenizer,
    options::SampleOptions,
    pipelines::Sampling,
};
use support::{device, reference, relative_difference, values};

/// Tokens between start and end.
const ROOM: usize = 75;

fn sd1() -> Pipeline {
    Pipeline::load(reference().join("sd/models/sd1"), &device()).unwrap()
}

fn text(pipeline: &Pipeline) -> &TextCondition {
    pipeline.condition().unwrap()
}

fn pair_of(
    pipeline: &Pipeline,
    prompt: &str,
    negative: &str,
    syntax: PromptSyntax,
) -> langevin::Result<Pair> {
    let options = SampleOptions {
        prompts: Some(vec![prompt.into()]),
        negative_prompts: Some(vec![negative.into()]),
        prompt_syntax: syntax,
        guidance: ClassifierFree::of_scale(5.0),
        num_inference_steps: Some(10),
        ..SampleOptions::default()
    };
    let size = Size {
        height: 32,
        width: 32,
    };
    pipeline.pair(&options, size)
}

fn towards(pipeline: &Pipeline, prompt: &str, syntax: PromptSyntax) -> Vec<f32> {
    values(
        pair_of(pipeline, prompt, "", syntax)
            .unwrap()
            .towards
            .sequence
            .unwrap(),
    )
}

fn tokens(tokenizer: &ClipTokenizer, text: &str) -> Vec<u32> {
    let pieces = tokenizer.pieces(text).unwrap();
    pieces.into_iter().map(|(id, _)| id).collect()
}

/// What the encoder makes of one chunk, where tokens with 0 in the mask are not looked at.
fn encoded(pipeline: &Pipeline, ids: &[u32], mask: Option<&[f32]>) -> Vec<f64> {
    let text = text(pipeline);
    let row = vec![text.tokenizer().framed(ids.iter().copied())];
    let mask = mask.map(|mask| vec![mask.to_vec()]);
    let output = text
        .encoder()
        .text_model
        .forward_with(&row, None, mask.as_deref())
        .unwrap();
    values(output.last_hidden_state)
        .into_iter()
        .map(f64::from)
        .collect()
}

/// Tokens with a weight each, and how many numbers a vector has.
struct Weighted {
    ids: Vec<u32>,
    weights: Vec<f64>,
    width: usize,
}

impl Weighted {
    fn of(pipeline: &Pipeline, parts: &[(&str, f64)]) -> Self {
        let tokenizer = text(pipeline).tokenizer();
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        for (part, weight) in parts {
            let own = tokens(tokenizer, part);
            weights.extend(vec![*weight; own.len()]);
            ids.extend(own);
        }
        let width = text(pipeline).encoder().text_model.config().hidden_size;
        Self { ids, weights, width }
    }

    /// The weight of the token that a number of the encoding is of.
    fn at(&self, number: usize) -> f64 {
        let place = number / self.width;
        let inner = place
            .checked_sub(1)
            .and_then(|place| self.weights.get(place).copied());
        inner.unwrap_or(1.0)
    }

    fn a1111(&self, pipeline: &Pipeline) -> Vec<f64> {
        let z = encoded(pipeline, &self.ids, None);
        let scaled: Vec<f64> = z
            .iter()
            .enumerate()
            .map(|(place, value)| value * self.at(place))
            .collect();
        let factor = z.iter().sum::<f64>() / scaled.iter().sum::<f64>();
        scaled.into_iter().map(|value| value * factor).collect()
    }

    /// `empty + (z − empty) · weight`, of a masked encoding where there is a mask.
    fn lerped(&self, pipeline: &Pipeline, mask: Option<&[f32]>) -> Vec<f64> {
        let (z, empty) = (encoded(pipeline, &self.ids, mask), encoded(pipeline, &[], None));
        let both = z.iter().zip(&empty).enumerate();
        both.map(|(place, (z, empty))| empty + (z - empty) * self.at(place))
            .collect()
    }

    fn compel(&self, pipeline: &Pipeline, light: &[(std::ops::Range<usize>, f64)]) -> Vec<f64> {
        let mut sum = self.lerped(pipeline, None);
        let mut total = 1.0;
        for (places, weight) in light {
            let mut mask = vec![1.0; ROOM + 2];
            mask[places.start + 1..places.end + 1].fill(0.0);
            let share = ((1.0 - weight) * std::f64::consts::FRAC_PI_2).tan();
            let without = self.lerped(pipeline, Some(&mask));
            sum.iter_mut()
                .zip(without)
                .for_each(|(sum, without)| *sum += without * share);
            total += share;
        }
        sum.into_iter().map(|value| value / total).collect()
    }
}

fn near(found: &[f32], expected: &[f64], what: &str) {
    let expected: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
    let off = relative_difference(found, &expected);
    assert!(off < 2e-5, "{what} is off by {off}");
}

#[test]
fn weights_follow_each_programs_formula() {
    let pipeline = sd1();
    // In brackets of round brackets A1111 multiplies and ComfyUI replaces.
    let prompt = "a (red (cat:1.4) in) snow";
    let parts = |inner: f64| {
        [
            ("a ", 1.0),
            ("red ", 1.1),
            ("cat", inner),
            (" in", 1.1),
            (" snow", 1.0),
        ]
    };
    let a1111 = Weighted::of(&pipeline, &parts(1.4 * 1.1));
    near(
        &towards(&pipeline, prompt, PromptSyntax::A1111),
        &a1111.a1111(&pipeline),
        "A1111",
    );
    let comfy = Weighted::of(&pipeline, &parts(1.4));
    near(
        &towards(&pipeline, prompt, PromptSyntax::Comfy),
        &comfy.lerped(&pipeline, None),
        "ComfyUI",
    );
    let square = Weighted::of(&pipeline, &[("a ", 1.0), ("cat", 1.0 / 1.1)]);
    near(
        &towards(&pipeline, "a [cat]", PromptSyntax::A1111),
        &square.a1111(&pipeline),
        "A1111",
    );
    let compel = Weighted::of(&pipeline, &[("a", 1.0), ("cat", 1.1 * 1.1), ("in snow", 1.0)]);
    near(
        &towards(&pipeline, "a cat++ in snow", PromptSyntax::Compel),
        &compel.compel(&pipeline, &[]),
        "compel",
    );
    let parts = [("a", 1.0), ("cat", 0.5), ("in", 1.0), ("snow", 0.81)];
    let compel = Weighted::of(&pipeline, &parts);
    let lengths = parts.map(|(part, _)| tokens(text(&pipeline).tokenizer(), part).len());
    let cat = lengths[0]..lengths[0] + lengths[1];
    let snow = cat.end + lengths[2]..cat.end + lengths[2] + lengths[3];
    let light = [(cat, 0.5), (snow, 0.81)];
    near(
        &towards(&pipeline, "a (cat)0.5 in snow--", PromptSyntax::Compel),
        &compel.compel(&pipeline, &light),
        "compel",
    );
}

#[test]
fn without_weights_every_syntax_gives_the_text_itself() {
    let pipeline = sd1();
    let plain = towards(&pipeline, "a cat in the snow", PromptSyntax::Plain);
    for syntax in [PromptSyntax::A1111, PromptSyntax::Comfy, PromptSyntax::Compel] {
        assert_eq!(towards(&pipeline, "a cat in the snow", syntax), plain, "{syntax}");
        assert_eq!(
            towards(&pipeline, "", syntax),
            towards(&pipeline, "", PromptSyntax::Plain)
        );
    }
    // A weight of 1 is none, and escaped brackets are text.
    assert_eq!(
        towards(&pipeline, "a (cat:1) in the snow", PromptSyntax::A1111),
        plain
    );
    let bracket = towards(&pipeline, "a (cat)", PromptSyntax::Plain);
    assert_eq!(towards(&pipeline, r"a \(cat\)", PromptSyntax::A1111), bracket);
    assert_eq!(towards(&pipeline, r"a \(cat\)", PromptSyntax::Comfy), bracket);
    assert_eq!(towards(&pipeline, r"a \(cat\)", PromptSyntax::Compel), bracket);
}

#[test]
fn a_masked_token_tells_the_others_nothing() {
    let pipeline = sd1();
    let mut mask = vec![1.0; ROOM + 2];
    mask[2] = 0.0;
    let width = text(&pipeline).encoder().text_model.config().hidden_size;
    let masked = |ids: &[u32]| encoded(&pipeline, ids, Some(&mask));
    let (one, other) = (masked(&[320, 330, 340]), masked(&[320, 335, 340]));
    assert_ne!(
        encoded(&pipeline, &[320, 330, 340], None)[3 * width..],
        encoded(&pipeline, &[320, 335, 340], None)[3 * width..]
    );
    for (place, (a, b)) in one.iter().zip(&other).enumerate() {
        if place / width != 2 {
            assert!((a - b).abs() < 1e-6, "{place}: {a} {b}");
        }
    }
    // Nothing masked is no mask.
    let all = vec![1.0; ROOM + 2];
    let found: Vec<f32> = encoded(&pipeline, &[320, 330], Some(&all))
        .iter()
        .map(|&v| v as f32)
        .collect();
    near(&found, &encoded(&pipeline, &[320, 330], None), "no mask");
}

/// How many tokens each chunk of a text has.
fn lengths(condition: &TextCondition, text: &str, syntax: PromptSyntax) -> Vec<usize> {
    let chunks = condition.chunks(text, syntax).unwrap();
    chunks.into_iter().map(|chunk| chunk.tokens).collect()
}

/// The chunks of tokens, encoded each by itself and one after another.
fn chunked(pipeline: &Pipeline, chunks: &[&[u32]]) -> Vec<f64> {
    chunks
        .iter()
        .flat_map(|chunk| encoded(pipeline, chunk, None))
        .collect()
}

#[test]
fn long_texts_go_through_the_encoder_in_chunks() {
    let pipeline = sd1();
    let condition = text(&pipeline);
    let long = "a ".repeat(100);
    let ids = tokens(condition.tokenizer(), &long);
    assert_eq!(ids.len(), 100);
    for syntax in [PromptSyntax::A1111, PromptSyntax::Comfy, PromptSyntax::Compel] {
        let found = towards(&pipeline, &long, syntax);
        near(
            &found,
            &chunked(&pipeline, &[&ids[..ROOM], &ids[ROOM..]]),
            syntax.to_string().as_str(),
        );
        assert_eq!(lengths(condition, &long, syntax), [75, 25]);
    }
    assert_eq!(lengths(condition, &long, PromptSyntax::Plain), [75]);
    // A1111: what follows a comma near the end of a chunk goes into the next.
    let comma = format!("{}, {}", "a ".repeat(60), "a ".repeat(30));
    assert_eq!(lengths(condition, &comma, PromptSyntax::A1111), [61, 30]);
    assert_eq!(lengths(condition, &comma, PromptSyntax::Compel), [75, 16]);
    let far = format!("{}, {}", "a ".repeat(50), "a ".repeat(40));
    assert_eq!(lengths(condition, &far, PromptSyntax::A1111), [75, 16]);
    assert_eq!(lengths(condition, "a BREAK a a", PromptSyntax::A1111), [1, 2]);
    assert_eq!(
        lengths(condition, "(a BREAK a:1.2) a", PromptSyntax::A1111),
        [1, 2]
    );
    assert_eq!(lengths(condition, "BREAK", PromptSyntax::A1111), [0]);
    let one = tokens(condition.tokenizer(), "a");
    near(
        &towards(&pipeline, "a BREAK a", PromptSyntax::A1111),
        &chunked(&pipeline, &[&one, &one]),
        "BREAK",
    );
    // ComfyUI keeps a word of a few tokens whole.
    let word = "xyzzy";
    let pieces = tokens(condition.tokenizer(), word).len();
    assert!((2..8).contains(&pieces), "{pieces}");
    let text = format!("{}{word}", "a ".repeat(74));
    assert_eq!(lengths(condition, &text, PromptSyntax::Comfy), [74, pieces]);
    assert_eq!(lengths(condition, &text, PromptSyntax::Compel), [75, pieces - 1]);
    let shown = condition.chunks("a cat BREAK Snow", PromptSyntax::A1111).unwrap();
    assert_eq!(
        [shown[0].text.as_str(), shown[1].text.as_str()],
        ["a cat", "snow"]
    );
    let message = condition
        .chunks(&"a ".repeat(75 * 33), PromptSyntax::A1111)
        .unwrap_err()
        .to_string();
    assert!(message.contains("33 chunks"), "{message}");
}

#[test]
fn texts_of_other_lengths_stand_beside_each_other() {
    let pipeline = sd1();
    let long = "a ".repeat(100);
    let sequences = |syntax| {
        let pair = pair_of(&pipeline, &long, "b", syntax).unwrap();
        (
            pair.towards.sequence.unwrap().dims(),
            values(pair.away.sequence.unwrap()),
        )
    };
    let short = encoded(&pipeline, &tokens(text(&pipeline).tokenizer(), "b"), None);
    let nothing = encoded(&pipeline, &[], None);
    for syntax in [PromptSyntax::A1111, PromptSyntax::Comfy] {
        let (shape, away) = sequences(syntax);
        assert_eq!(shape[1], 154);
        near(&away, &[short.clone(), short.clone()].concat(), "repeated");
    }
    let (_, away) = sequences(PromptSyntax::Compel);
    near(&away, &[short, nothing].concat(), "with an empty chunk");
    // One chunk and three, and two and three: 2 and 3 repeat to 6.
    let pair = pair_of(&pipeline, "a BREAK b BREAK c", "a BREAK b", PromptSyntax::A1111).unwrap();
    assert_eq!(pair.towards.sequence.unwrap().dims()[1], 6 * 77);
}

fn plan(pipeline: &Pipeline, prompt: &str, syntax: PromptSyntax) -> langevin::Result<Plan> {
    let request = Request {
        prompt: vec![prompt.into()],
        prompt_syntax: syntax,
        steps: Some(6),
        scheduler: Some("ddim".into()),
        ..Request::default()
    };
    Plan::of(pipeline, &request)
}

/// The sample after each step.
fn path(pipeline: &Pipeline, prompt: &str) -> Vec<Vec<f32>> {
    let plan = plan(pipeline, prompt, PromptSyntax::A1111).unwrap();
    let mut sampling: Sampling<'_> = plan.picture(pipeline, 0).unwrap();
    let mut samples = Vec::new();
    while let Some(step) = sampling.next() {
        samples.push(values::<4>(step.unwrap().sample.clone()));
    }
    samples
}

#[test]
fn schedules_change_the_text_on_the_way() {
    let pipeline = sd1();
    let (cat, dog) = (path(&pipeline, "a cat"), path(&pipeline, "a dog"));
    let changed = path(&pipeline, "a [cat:dog:0.5]");
    assert_eq!(changed[..3], cat[..3]);
    assert_ne!(changed[3], cat[3]);
    assert_eq!(path(&pipeline, "a [cat:dog:3]"), changed);
    assert_eq!(path(&pipeline, "a [cat:dog:6]"), cat);
    assert_eq!(path(&pipeline, "a [cat:dog:0]"), dog);
    let turns = path(&pipeline, "a [cat|dog]");
    assert_eq!(turns[0], cat[0]);
    assert_ne!(turns[1], cat[1]);
    // Repeated, and in company, it is the same.
    assert_eq!(path(&pipeline, "a [cat|dog]"), turns);
    let request = |batch_size| Request {
        prompt: vec!["a [cat|dog]".into(), "a [cat:dog:2]".into(), "a dog".into()],
        prompt_syntax: PromptSyntax::A1111,
        steps: Some(4),
        seeds: vec![1, 2, 3],
        batch_size,
        ..Request::default()
    };
    let draw = |batch_size| {
        let plan = Plan::of(&pipeline, &request(batch_size)).unwrap();
        let samples = plan.samples(&pipeline, &mut ()).unwrap().unwrap();
        values(Tensor::cat(samples, 0))
    };
    assert_eq!(draw(1), draw(3));
}

#[test]
fn what_is_drawn_together_adds_up() {
    let pipeline = sd1();
    let cat = path(&pipeline, "a cat");
    let close = |a: &[Vec<f32>], b: &[Vec<f32>]| {
        let off = relative_difference(a.last().unwrap(), b.last().unwrap());
        assert!(off < 1e-3, "{off}");
    };
    // Two halves are a whole, and nothing is nothing.
    close(&path(&pipeline, "a cat :0.5 AND a cat :0.5"), &cat);
    close(&path(&pipeline, "a cat AND a dog :0"), &cat);
    let both = path(&pipeline, "a cat :0.5 AND a dog :0.5");
    assert_ne!(both.last(), cat.last());
    close(&both, &path(&pipeline, "a dog :0.5 AND a cat :0.5"));
    // eps = u + g · Σ w (c − u): a weight is a factor of the scale.
    let scaled = |prompt: &str, scale| {
        let request = Request {
            prompt: vec![prompt.into()],
            prompt_syntax: PromptSyntax::A1111,
            steps: Some(2),
            guidance: ClassifierFree::of_scale(scale),
            ..Request::default()
        };
        let plan = Plan::of(&pipeline, &request)?;
        Ok::<_, langevin::Error>(vec![values(plan.samples(&pipeline, &mut ())?.unwrap().remove(0))])
    };
    close(
        &scaled("a cat :0.5", 8.0).unwrap(),
        &scaled("a cat", 4.0).unwrap(),
    );
    let message = scaled("a AND b", 1.0).unwrap_err().to_string();
    assert!(message.contains("`AND`"), "{message}");
}

#[test]
fn blends_are_mixed_and_conjunctions_follow() {
    let pipeline = sd1();
    let condition = text(&pipeline);
    let own = |text: &str| encoded(&pipeline, &tokens(condition.tokenizer(), text), None);
    let (cat, dog) = (own("cat"), own("dog"));
    let mixed: Vec<f64> = cat
        .iter()
        .zip(&dog)
        .map(|(a, b)| (a * 0.6 + b * 0.2) / 0.8)
        .collect();
    near(
        &towards(
            &pipeline,
            r#"("cat", "dog").blend(0.6, 0.2)"#,
            PromptSyntax::Compel,
        ),
        &mixed,
        "blend",
    );
    let sum: Vec<f64> = cat.iter().zip(&dog).map(|(a, b)| a * 0.6 + b * 0.2).collect();
    near(
        &towards(
            &pipeline,
            r#"("cat", "dog").blend(0.6, 0.2, no_normalize)"#,
            PromptSyntax::Compel,
        ),
        &sum,
        "sum",
    );
    let follow: Vec<f64> = cat.iter().map(|a| a * 0.5).chain(dog).collect();
    near(
        &towards(&pipeline, r#"("cat", "dog").and(0.5, 1)"#, PromptSyntax::Compel),
        &follow,
        "and",
    );
}

#[test]
fn two_text_encoders_are_weighed_each() {
    let pipeline = Pipeline::load(reference().join("sdxl/models/base"), &device()).unwrap();
    let plain = pair_of(&pipeline, "a cat", "a dog", PromptSyntax::Plain).unwrap();
    for syntax in [PromptSyntax::A1111, PromptSyntax::Comfy, PromptSyntax::Compel] {
        let same = pair_of(&pipeline, "a cat", "a dog", syntax).unwrap();
        assert_eq!(
            values(same.towards.sequence.unwrap()),
            values(plain.towards.sequence.clone().unwrap())
        );
        assert_eq!(
            values(same.away.vector.unwrap()),
            values(plain.away.vector.clone().unwrap())
        );
        let weighted = if syntax == PromptSyntax::Compel {
            "a cat++"
        } else {
            "a (cat:1.5)"
        };
        let other = pair_of(&pipeline, weighted, "a dog", syntax).unwrap();
        assert_ne!(
            values(other.towards.sequence.unwrap()),
            values(plain.towards.sequence.clone().unwrap())
        );
        // The vector of the whole text is unweighted.
        assert_eq!(
            values(other.towards.vector.unwrap()),
            values(plain.towards.vector.clone().unwrap())
        );
    }
    let request = Request {
        prompt: vec!["a [cat:(dog:1.3):1] ".repeat(20)],
        prompt_2: vec!["(oil:0.8) painting".into()],
        negative_prompt: vec!["blurry BREAK grey".into()],
        prompt_syntax: PromptSyntax::A1111,
        steps: Some(3),
        ..Request::default()
    };
    assert!(
        Plan::of(&pipeline, &request)
            .unwrap()
            .run(&pipeline, &mut ())
            .is_ok()
    );
    let request = Request {
        prompt: vec!["a AND b".into()],
        ..request
    };
    let message = Plan::of(&pipeline, &request).unwrap_err().to_string();
    assert!(message.contains("2 and 1 parts"), "{message}");
}

#[test]
fn learned_words_are_found_as_each_program_finds_them() {
    let files = reference().join("lora/textual_inversion");
    let file = |name: &str, token: Option<&str>| EmbeddingFile {
        path: files.join(name),
        token: token.map(String::from),
    };
    let pipeline = sd1()
        .with_embeddings(&[file("multi_vector.safetensors", Some("EasyNegative"))])
        .unwrap();
    let (three, plain) = (PromptSyntax::A1111, PromptSyntax::Plain);
    let expected = towards(&pipeline, "a easynegative", plain);
    assert_eq!(towards(&pipeline, "a EASYNEGATIVE", three), expected);
    assert_eq!(
        towards(&pipeline, "a embedding:easynegative", PromptSyntax::Comfy),
        expected
    );
    assert_ne!(
        towards(&pipeline, "a easynegative", PromptSyntax::Comfy),
        expected
    );
    assert_eq!(
        towards(&pipeline, "a easynegative", PromptSyntax::Compel),
        expected
    );
    let condition = text(&pipeline);
    assert_eq!(lengths(condition, "(easynegative:1.2), a", three), [5]);
    // It is not cut in two.
    assert_eq!(
        lengths(condition, &format!("{}easynegative", "a ".repeat(73)), three),
        [73, 3]
    );
    assert_eq!(
        lengths(condition, "embedding:easynegative, a", PromptSyntax::Comfy),
        [5]
    );
    // It may be named as its file is, and one that there is not is left out of the text, with a line.
    let comfy = |text: &str| towards(&pipeline, text, PromptSyntax::Comfy);
    assert_eq!(comfy("a embedding:easynegative.safetensors"), expected);
    assert_eq!(comfy("a (embedding:nothere:1.2), dog"), comfy("a , dog"));
    let notices = |text: &str| {
        plan(&pipeline, text, PromptSyntax::Comfy)
            .unwrap()
            .notices()
            .join(" ")
    };
    assert!(notices("a embedding:nothere, (embedding:nor.pt:1.1) dog").contains("nor.pt, nothere"));
    assert_eq!(
        notices("a (embedding:easynegative:1.2), embedding:EasyNegative.pt"),
        ""
    );
}

#[test]
fn what_cannot_be_read_is_refused_and_what_does_nothing_gets_a_line() {
    let pipeline = sd1();
    let message = plan(&pipeline, "a cat.swap(dog)", PromptSyntax::Compel)
        .unwrap_err()
        .to_string();
    assert!(message.contains(".swap"), "{message}");
    let drawn = plan(&pipeline, "a cat <hypernet:snow:0.8>", PromptSyntax::A1111).unwrap();
    assert!(
        drawn
            .notices()
            .iter()
            .any(|notice| notice.contains("<hypernet:snow:0.8>")),
        "{:?}",
        drawn.notices()
    );
    assert!(
        plan(&pipeline, "a < b", PromptSyntax::Plain)
            .unwrap()
            .notices()
            .is_empty()
    );
    let pictures = Pipeline::load(reference().join("pipelines/ddpm"), &device()).unwrap();
    let request = Request {
        prompt_syntax: PromptSyntax::Comfy,
        ..Request::default()
    };
    let message = Plan::of(&pictures, &request).unwrap_err().to_string();
    assert!(message.contains("`prompt_syntax`"), "{message}");
    let many = format!("[{}]", vec!["a"; 300].join("|").replace("a|", "a |"));
    assert!(plan(&pipeline, &many, PromptSyntax::A1111).is_ok());
}
