//! The page in a browser: what a user does with it, and whether everybody can.

mod support;

use std::{env, fs, io::Write, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    data::{Channels, Picture, decode_picture, read_picture},
    device::default_device,
    grid,
    pipelines::{LoadOptions, SampleOptions},
    training::RunLock,
};
use langevin_server::{Models, ServerOptions};
use serde_json::{Value, json};
use support::{
    Server, alone,
    browser::{Browser, MISSING, axe},
    save_model, until,
};

/// A window of this size on a server's page; `None`, with a word, where there is no browser.
fn open(server: &Server, link: &str, [width, height]: [u32; 2]) -> Option<Browser> {
    let Some(browser) = Browser::open(width, height) else {
        println!("{MISSING}");
        return None;
    };
    browser.go(&format!("http://{}/{link}", server.address));
    browser.until("document.documentElement.dataset.ready");
    Some(browser)
}

/// Whether a download has ended. Chromium takes the name with an empty file first, and puts the whole one in its place.
fn downloaded(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

const DESKTOP: [u32; 2] = [1280, 900];
const PHONE: [u32; 2] = [390, 844];

/// Nothing went wrong that nobody saw.
fn assert_quiet(browser: &Browser) {
    let log = browser.log();
    // Chromium's advice on other matters is of the level DEBUG.
    let heard = log
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["level"] != "DEBUG");
    assert_eq!(heard.count(), 0, "{log}");
}

#[test]
fn a_user_draws_looks_stops_and_finds_it_again() {
    let server = Server::start(ServerOptions::default());
    let Some(browser) = open(
        &server,
        "#model=grey&class=light&sampler=ddim&steps=30&seed=7&count=2",
        DESKTOP,
    ) else {
        return;
    };

    // Generate, and watch: the bar moves, pictures change on the way, and the strip grows.
    browser.run(
        "window.seen = new Set(); window.bar = [];
         new MutationObserver(() => {
           const img = document.querySelector('#pictures img');
           if (img) window.seen.add(img.src);
           window.bar.push(document.getElementById('progress').value);
         }).observe(document.getElementById('view-draw'), { subtree: true, childList: true, attributes: true, attributeFilter: ['src', 'value'] });",
    );
    browser.click("#generate");
    browser.until("document.getElementById('status').textContent.startsWith('Done')");
    assert!(browser.run("return window.seen.size;").as_u64().unwrap() > 4);
    assert!(browser.run("return window.bar.some((value) => value > 0.1 && value < 0.9);") == true);
    assert_eq!(
        browser.run("return document.getElementById('progress').value;"),
        1
    );
    assert!(
        browser
            .run("return document.querySelectorAll('#strip li').length;")
            .as_u64()
            .unwrap()
            > 8
    );
    let alt = browser.run("return document.querySelector('#pictures img').alt;");
    assert_eq!(alt, "light, drawn by grey from seed 7");

    // The gallery has it; its settings are shown, it is downloaded, and it is the library's picture.
    browser.click("#gallery button");
    browser.until("document.getElementById('shown').open");
    let facts = browser.text("#shown-facts");
    for fact in ["Classlight", "Samplerddim", "Steps30", "Seed7", "Pictures2"] {
        assert!(facts.contains(fact), "{facts}");
    }
    browser.click("#shown-pictures a");
    let file = browser.downloads.path().join("grey-7.png");
    until("the picture is downloaded", || downloaded(&file));
    let options = SampleOptions {
        classes: Some(vec![1]),
        ..SampleOptions::default()
    };
    let expected = alone(&server.folder.path().join("grey"), "ddim", 30, 7, options);
    assert_eq!(read_picture(&file).unwrap(), expected);
    let texts = grid::read_png_text(&file).unwrap();
    assert!(texts.contains(&("seed".into(), "7".into())), "{texts:?}");

    // The GIF is drawn again from the same settings.
    browser.click("#shown [data-do=gif]");
    let gif = browser.downloads.path().join("grey-7.gif");
    until("the GIF is downloaded", || downloaded(&gif));
    assert!(fs::read(&gif).unwrap().starts_with(b"GIF89a"));

    // Settings are changed, and taken back from the gallery.
    browser.click("#shown [data-do=close]");
    browser.set("seed", "99");
    browser.set("class", "dark");
    browser.click("#gallery button");
    browser.click("#shown [data-do=reuse]");
    browser.until("!document.getElementById('shown').open");
    let values = browser.run("const { elements } = document.getElementById('settings'); return [elements.seed.value, elements.class.value];");
    assert_eq!(values, json!(["7", "light"]));

    // Stop gives the place up.
    browser.set("sampler", "ddpm");
    browser.set("steps", "1000");
    browser.set("count", "64");
    browser.click("#generate");
    browser.until("/left/.test(document.getElementById('status').textContent)");
    browser.click("#stop");
    browser.until("document.getElementById('status').textContent === 'Stopped.'");
    until("the server has stopped, too", || server.queue("running") == 0);

    // The gallery outlives the page, and the link draws the same picture.
    browser.set("sampler", "ddim");
    browser.set("steps", "30");
    browser.set("count", "2");
    let link = browser.run("return location.href;").as_str().unwrap().to_string();
    assert!(link.contains("seed=7") && link.contains("class=light"), "{link}");
    browser.go("about:blank");
    browser.go(&link);
    browser.until("document.documentElement.dataset.ready");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    browser.click("#generate");
    browser.until("document.querySelectorAll('#gallery li').length === 2");
    let same = browser.run(
        "const images = [...document.querySelectorAll('#gallery img')]; return images[0].src === images[1].src && images[0].src.length > 100;",
    );
    assert_eq!(same, true);
    assert_quiet(&browser);
}

#[test]
fn the_form_shows_what_the_model_can() {
    let server = Server::start(ServerOptions::default());
    let Some(browser) = open(&server, "#model=grey", DESKTOP) else {
        return;
    };
    let shown = |need: &str| {
        browser.run(&format!(
            "return !document.querySelector('[data-needs={need}]').hidden;"
        )) == true
    };
    assert_eq!(
        ["classes", "told", "prompt", "guide-colour", "guide-clip"].map(shown),
        [true, true, false, false, false]
    );
    browser.set("model", "colour");
    assert_eq!(
        ["classes", "told", "prompt", "guide-colour", "guide-clip"].map(shown),
        [false, false, false, true, false]
    );
    browser.set("sampler", "ddim");
    assert!(shown("eta"));
    browser.set("sampler", "euler");
    assert!(!shown("eta"));

    // A colour leads it.
    browser.run("document.getElementById('details-loss').open = true;");
    browser.click("[name=colour_on]");
    browser.set("colour", "#ff0000");
    browser.set("steps", "10");
    browser.set("count", "1");
    browser.click("#generate");
    browser.until("document.getElementById('status').textContent.startsWith('Done')");
    assert!(
        browser
            .run("return location.hash;")
            .as_str()
            .unwrap()
            .contains("colour=%23ff0000")
    );

    // What cannot be is said where it is typed, and what the server refuses is said too.
    browser.set("steps", "5000");
    browser.click("#generate");
    assert_eq!(browser.run("return document.activeElement.name;"), "steps");
    let refused = "(async () => { const { call } = await import('/page/api.js');
        return call('/api/schedule?model=nobody').catch((error) => error.message); })()";
    let message = browser.wait_for(refused);
    assert!(
        message.as_str().unwrap().contains("There is no model `nobody`"),
        "{message}"
    );
    // Another seed.
    browser.set("seed", "5");
    browser.click("#dice");
    assert_ne!(
        browser.run("return document.getElementById('settings').elements.seed.value;"),
        "5"
    );
}

#[test]
fn a_colour_can_be_told() {
    let server = Server::told();
    let Some(browser) = open(&server, "#sampler=ddim&steps=4&count=1&seed=4", DESKTOP) else {
        return;
    };
    let draw = |number: usize| {
        browser.click("#generate");
        browser.until(&format!(
            "document.querySelectorAll('#gallery li').length === {number}"
        ));
        browser.run("return document.querySelector('#gallery img').src;")
    };
    let untold = draw(1);
    browser.click("[name=told_on]");
    browser.set("told_colour", "#ff0033");
    let told = draw(2);
    assert_ne!(told, untold);
    let request = json!({ "sampler": "ddim", "steps": 4, "seed": 4, "eta": 0, "vector": [1.0, -1.0, -0.6] });
    let answer = STANDARD.encode(server.generate("image/png", &request).expect(200).body);
    assert_eq!(told, format!("data:image/png;base64,{answer}"));
    let hash = browser.run("return location.hash;");
    assert!(hash.as_str().unwrap().contains("told_colour=%23ff0033"), "{hash}");
    assert_quiet(&browser);
}

#[test]
fn attributes_can_be_ticked() {
    let server = Server::with_attributes();
    let link = "#sampler=ddim&steps=4&count=1&seed=4&attributes=hat,beard";
    let Some(browser) = open(&server, link, DESKTOP) else {
        return;
    };
    let warned = browser.run("return document.getElementById('alert').textContent;");
    assert!(warned.as_str().unwrap().contains("beard"), "{warned}");
    let asked = || browser.run("return new URLSearchParams(location.hash.slice(1)).get('attributes');");
    assert_eq!(asked(), "hat");
    browser.click("#attributes [value=smiling]");
    assert_eq!(asked(), "smiling,hat");
    browser.click("#generate");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    let drawn = browser.run("return document.querySelector('#gallery img').src;");
    let request = json!({ "sampler": "ddim", "steps": 4, "seed": 4, "eta": 0, "attributes": "smiling,hat" });
    let answer = STANDARD.encode(server.generate("image/png", &request).expect(200).body);
    assert_eq!(drawn, format!("data:image/png;base64,{answer}"));
    for value in ["smiling", "hat"] {
        browser.click(&format!("#attributes [value={value}]"));
    }
    assert_eq!(asked(), "none");
    browser.click("[name=attributes_on]");
    assert_eq!(asked(), Value::Null);
    assert_quiet(&browser);
}

#[test]
fn a_picture_can_be_chosen_to_begin_with() {
    let server = Server::start(ServerOptions::default());
    let link = "#model=colour&sampler=ddim&steps=10&count=1&strength=0.2&seed=4";
    let Some(browser) = open(&server, link, DESKTOP) else {
        return;
    };
    let path = server.folder.path().join("red.png");
    let red = Picture::new(8, 8, Channels::Rgb, [250, 20, 20].repeat(64)).unwrap();
    grid::write_png(&path, &red, &[]).unwrap();
    browser.run("document.getElementById('details-init').open = true;");
    browser.keys("[name=init_image]", path.to_str().unwrap());
    browser.until("document.querySelector('#init-shown img').naturalWidth === 8");
    browser.click("#generate");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    // It is the API's answer to the same request, and not what noise alone becomes.
    let encoded = STANDARD.encode(fs::read(&path).unwrap());
    let mut request = json!({
        "model": "colour", "sampler": "ddim", "steps": 10, "seed": 4, "eta": 0, "init_image": encoded, "strength": 0.2
    });
    let of = |request: &Value| STANDARD.encode(server.generate("image/png", request).expect(200).body);
    let shown = browser.run("return document.querySelector('#gallery img').src;");
    assert_eq!(shown, format!("data:image/png;base64,{}", of(&request)));
    request["init_image"] = Value::Null;
    request["strength"] = Value::Null;
    assert_ne!(shown, format!("data:image/png;base64,{}", of(&request)));
    browser.click("#init-shown button");
    assert_eq!(browser.run("return location.hash.includes('strength');"), false);
    assert_quiet(&browser);
}

/// The pictures on the stage, see [`without_texts`].
fn shown(browser: &Browser) -> Vec<Vec<u8>> {
    let urls = browser.run("return [...document.querySelectorAll('#pictures img')].map((img) => img.src);");
    let urls = urls.as_array().unwrap().iter();
    urls.map(|url| {
        let encoded = url.as_str().unwrap().strip_prefix("data:image/png;base64,");
        without_texts(encoded.unwrap())
    })
    .collect()
}

/// A PNG file without its texts: they say what was asked, and the page asks for what is usual by name.
fn without_texts(encoded: &str) -> Vec<u8> {
    let bytes = STANDARD.decode(encoded).unwrap();
    let (signature, mut rest) = bytes.split_at(8);
    let mut kept = signature.to_vec();
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        // Length, kind and checksum are 12 bytes.
        let (chunk, others) = rest.split_at(u32::from_be_bytes(*length) as usize + 12);
        if ![b"tEXt", b"iTXt", b"zTXt"]
            .iter()
            .any(|kind| chunk[4..8] == kind[..])
        {
            kept.extend(chunk);
        }
        rest = others;
    }
    kept
}

/// The same as the API answers with.
fn answered(server: &Server, request: &Value) -> Vec<Vec<u8>> {
    let answer = server.generate("application/json", request).expect(200).json();
    let pictures = answer["pictures"].as_array().unwrap().iter();
    pictures
        .map(|picture| without_texts(picture["png"].as_str().unwrap()))
        .collect()
}

/// Draws what the form says, to the end.
fn draw(browser: &Browser) {
    let kept = browser.run("return document.querySelectorAll('#gallery li').length;");
    browser.run("document.getElementById('settings').requestSubmit();");
    let kept = kept.as_u64().unwrap() + 1;
    browser.until(&format!(
        "document.querySelectorAll('#gallery li').length === {kept}"
    ));
}

#[test]
fn words_become_a_picture_of_any_size() {
    let server = Server::latent(ServerOptions::default());
    let Some(browser) = open(&server, "#model=sd&seed=5", DESKTOP) else {
        return;
    };
    let value = |name: &str| {
        let value = browser.run(&format!(
            "return document.getElementById('settings').elements.{name}.value;"
        ));
        value.as_str().unwrap().to_string()
    };
    // The prompt comes first, and what the class does where nobody says is filled in.
    let first = browser
        .run("return document.querySelector('#settings textarea, #settings input, #settings select').name;");
    assert_eq!(first, "prompt");
    assert_eq!(
        ["steps", "guidance_scale", "size", "count"].map(value),
        ["50", "7.5", "32x32", "1"]
    );
    browser.keys("[name=prompt]", "a lighthouse in a storm");
    browser.keys("[name=negative_prompt]", "blur");
    browser.set("size_choice", "other");
    browser.set("width", "48");
    browser.set("height", "64");
    browser.set("steps", "3");
    browser.set("guidance_scale", "4");
    browser.set("count", "2");
    browser.keys("[name=prompt]", "\u{E009}\u{E007}");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    let request = json!({
        "model": "sd", "prompt": "a lighthouse in a storm", "negative_prompt": "blur", "size": "48x64", "steps": 3, "guidance_scale": 4,
        "seed": 5, "count": 2
    });
    assert_eq!(shown(&browser), answered(&server, &request));
    assert_eq!(
        browser.run("const { naturalWidth, naturalHeight } = document.querySelector('#gallery img'); return [naturalWidth, naturalHeight];"),
        json!([48, 64])
    );
    // The link draws it again, and the gallery says what it was.
    let link = browser.run("return location.href;").as_str().unwrap().to_string();
    assert!(
        link.contains("size=48x64") && link.contains("guidance_scale=4"),
        "{link}"
    );
    browser.go("about:blank");
    browser.go(&link);
    browser.until("document.documentElement.dataset.ready");
    assert_eq!(["width", "height"].map(value), ["48", "64"]);
    draw(&browser);
    assert_eq!(shown(&browser), answered(&server, &request));
    browser.click("#gallery button");
    let facts = browser.text("#shown-facts");
    assert!(
        facts.contains("Size48x64") && facts.contains("Negative promptblur"),
        "{facts}"
    );
    browser.click("#shown [data-do=close]");

    // Another model has other defaults and other fields.
    browser.set("model", "lcm");
    assert_eq!(["steps", "guidance_scale"].map(value), ["4", "8.5"]);
    assert_eq!(
        browser.run("return document.querySelector('[data-needs=negative_prompt]').hidden;"),
        true
    );
    browser.set("model", "xl");
    assert_eq!(["steps", "guidance_scale"].map(value), ["50", "5"]);
    browser.run("document.getElementById('details-texts').open = true;");
    browser.keys("[name=prompt_2]", "at night");
    browser.set("steps", "2");
    browser.set("size_choice", "48x32");
    draw(&browser);
    let request = json!({
        "model": "xl", "prompt": "a lighthouse in a storm", "prompt_2": "at night", "negative_prompt": "blur", "size": "48x32", "steps": 2,
        "seed": 5, "count": 2
    });
    assert_eq!(shown(&browser), answered(&server, &request));
    // What the model cannot draw is said where it is typed.
    browser.set("size_choice", "other");
    browser.set("width", "33");
    browser.click("#generate");
    assert_eq!(browser.run("return document.activeElement.name;"), "width");
    assert_quiet(&browser);
}

#[test]
fn a_picture_is_drawn_anew_and_painted_in() {
    let server = Server::latent(ServerOptions::default());
    let Some(browser) = open(&server, "#model=sd&seed=5&steps=4&prompt=a+tree", DESKTOP) else {
        return;
    };
    let path = server.folder.path().join("wide.png");
    let pixels = (0..64 * 32).flat_map(|i| [(i % 256) as u8, 120, 60]).collect();
    grid::write_png(&path, &Picture::new(32, 64, Channels::Rgb, pixels).unwrap(), &[]).unwrap();
    let encoded = format!(
        "data:image/png;base64,{}",
        STANDARD.encode(fs::read(&path).unwrap())
    );

    // It is dropped, and the size follows its shape.
    browser.run(&format!(
        "window.drop = (target) => {{
           const bytes = Uint8Array.from(atob({encoded:?}.split(',')[1]), (letter) => letter.charCodeAt(0));
           const dataTransfer = new DataTransfer();
           dataTransfer.items.add(new File([bytes], 'wide.png', {{ type: 'image/png' }}));
           for (const kind of ['dragover', 'drop']) target.dispatchEvent(new DragEvent(kind, {{ dataTransfer, bubbles: true, cancelable: true }}));
         }};
         document.getElementById('details-init').open = true;"
    ));
    browser.keys("[name=init_image]", path.to_str().unwrap());
    browser.until("document.querySelector('#init-shown img').naturalWidth === 64");
    assert_eq!(
        browser.run("return document.getElementById('settings').elements.size.value;"),
        "46x22"
    );
    assert_eq!(
        browser.run("return document.getElementById('settings').elements.strength.value;"),
        "0.8"
    );
    browser.set("strength", "0.5");
    draw(&browser);
    let request = |more: Value| {
        let mut request =
            json!({ "model": "sd", "seed": 5, "steps": 4, "prompt": "a tree", "size": "46x22" });
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        request
    };
    let begun = request(json!({ "init_image": encoded, "strength": 0.5 }));
    assert_eq!(shown(&browser), answered(&server, &begun));

    // Nothing is drawn before there is a mask.
    browser.click("[name=paint]");
    browser.click("#generate");
    assert!(browser.text("#alert").contains("Paint over what"));
    browser.click("#paint-mask");
    browser.until("document.getElementById('easel').open");
    browser.drag("#mask", [0.1, 0.1], [0.1, 0.9]);
    browser.click("#easel [data-do=invert]");
    browser.click("#erase");
    browser.drag("#mask", [0.9, 0.1], [0.9, 0.9]);
    browser.click("#easel [data-do=done]");
    browser.until("document.getElementById('about-mask').textContent.includes('%')");
    let about = browser.text("#about-mask");
    let part: f64 = about.split(' ').nth(3).unwrap().parse().unwrap();
    assert!((60.0..90.0).contains(&part), "{about}");
    draw(&browser);
    let mask = browser.wait_for("import('/page/settings.js').then(({ files }) => files.mask)");
    let mask = mask.as_str().unwrap().to_string();
    let bytes = STANDARD.decode(mask.split(',').nth(1).unwrap()).unwrap();
    let painted = decode_picture(&bytes, 64, "the mask")
        .unwrap()
        .into_channels(Channels::Grey);
    assert_eq!((painted.height(), painted.width()), (32, 64));
    let at = |x: usize| painted.pixels()[16 * 64 + x];
    assert_eq!([at(6), at(32), at(57)], [0, 255, 0]);
    let inside = request(json!({ "inpaint": encoded, "mask": mask, "strength": 0.5 }));
    assert_eq!(shown(&browser), answered(&server, &inside));
    // By keyboard too.
    browser.click("#paint-mask");
    browser.until("document.getElementById('easel').open");
    browser.click("#easel [data-do=clear]");
    browser.click("#erase");
    browser.keys("#mask", " \u{E014}\u{E014} ");
    browser.click("#easel [data-do=done]");
    browser.until(&format!("document.getElementById('about-mask').textContent && document.getElementById('about-mask').textContent !== {about:?}"));

    // The gallery brings the picture and the mask back.
    browser.click("#init-shown button");
    browser.click("#gallery button");
    assert!(
        browser
            .text("#shown-facts")
            .contains("Paintedin a part of a picture")
    );
    browser.click("#shown [data-do=reuse]");
    draw(&browser);
    assert_eq!(shown(&browser), answered(&server, &inside));

    // A model that does nothing else needs no asking, and one is dropped for it.
    browser.set("model", "paint");
    browser.click("#init-shown button");
    browser.click("#generate");
    assert!(browser.text("#alert").contains("begins with a picture"));
    browser.run("window.drop(document.querySelector('[name=prompt]'));");
    browser.until("document.querySelector('#init-shown img').naturalWidth === 64");
    browser.click("#paint-mask");
    browser.until("document.getElementById('easel').open");
    browser.click("#easel [data-do=invert]");
    browser.click("#easel [data-do=done]");
    browser.until("document.getElementById('about-mask').textContent.includes('100 %')");
    browser.set("steps", "2");
    draw(&browser);
    assert_quiet(&browser);
}

#[test]
fn a_flagged_picture_is_said_to_be_so() {
    let server = Server::latent(ServerOptions::default());
    let asked = json!({ "model": "safe", "prompt": "a tree", "steps": 2, "count": 4 });
    let answer = server.generate("application/json", &asked).expect(200).json();
    let flagged = |picture: &&Value| picture["flagged"] == true;
    let count = answer["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .filter(flagged)
        .count();
    let link = "#model=safe&prompt=a+tree&steps=2&count=4&seed=0";
    let Some(browser) = open(&server, link, DESKTOP) else {
        return;
    };
    draw(&browser);
    let said = browser
        .text("#status")
        .contains("flagged by the model’s safety checker");
    assert_eq!(said, count > 0, "{count}");
    browser.click("#gallery button");
    let captions = browser.text("#shown-pictures");
    assert_eq!(captions.matches("flagged by the safety checker").count(), count);
    assert_quiet(&browser);
}

#[test]
fn nothing_keeps_anybody_out_of_latents() {
    let server = Server::latent(ServerOptions::default());
    let Some(axe) = axe() else {
        println!("skipped: axe-core is not in target/axe (`.ci/run` fetches it where npm is)");
        return;
    };
    let path = server.folder.path().join("red.png");
    grid::write_png(
        &path,
        &Picture::new(32, 32, Channels::Rgb, vec![90; 3072]).unwrap(),
        &[],
    )
    .unwrap();
    for (theme, size) in [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)] {
        let Some(browser) = open(&server, "#model=xl&steps=2&prompt=a+tree&size=40x32", size) else {
            return;
        };
        browser.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] }),
        );
        let check = |what: &str| {
            let found = serious(&browser, &axe);
            assert!(found.is_empty(), "{theme}, {size:?}, {what}: {found:#?}");
            let fits = browser.run("return document.documentElement.scrollWidth <= innerWidth;") == true;
            assert!(
                fits,
                "{theme}, {size:?}, {what}: the page is wider than its window"
            );
        };
        browser.run("for (const details of document.querySelectorAll('details')) details.open = true;");
        browser.keys("[name=init_image]", path.to_str().unwrap());
        browser.until("document.querySelector('#init-shown img').naturalWidth === 32");
        browser.run("document.getElementById('settings').elements.paint.click();");
        check("the form");
        browser.run("document.getElementById('paint-mask').click();");
        browser.until("document.getElementById('easel').open");
        browser.drag("#mask", [0.2, 0.2], [0.6, 0.6]);
        check("the easel");
        browser.click("#easel [data-do=done]");
        browser.until("document.getElementById('about-mask').textContent.includes('%')");
        draw(&browser);
        check("a result");
        browser.run("document.querySelector('#gallery button').click();");
        check("the dialog");
    }
}

#[test]
fn a_run_is_followed_as_it_goes() {
    let picture = Picture::new(2, 2, Channels::Grey, vec![0; 4]).unwrap();
    let server = Server::of(|folder| {
        let run = folder.join("runs/digits-1");
        fs::create_dir_all(&run).unwrap();
        let config = langevin::training::TrainingConfig::default();
        fs::write(run.join("training.json"), serde_json::to_string(&config).unwrap()).unwrap();
        fs::write(
            run.join("metrics.jsonl"),
            "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.4}\n",
        )
        .unwrap();
        ServerOptions {
            runs: Some(folder.join("runs")),
            ..ServerOptions::default()
        }
    });
    let _goes_on = RunLock::acquire(&server.folder.path().join("runs/digits-1")).unwrap();
    let Some(browser) = open(&server, "#tab=training", DESKTOP) else {
        return;
    };
    browser
        .until("document.getElementById('run-about').textContent.includes('running, 2 steps, loss 0.4500')");
    assert_eq!(
        browser.run("return document.querySelectorAll('#run-chart svg').length;"),
        1
    );
    let run = server.folder.path().join("runs/digits-1");
    let mut metrics = fs::File::options()
        .append(true)
        .open(run.join("metrics.jsonl"))
        .unwrap();
    metrics.write_all(b"{\"step\":3,\"loss\":0.3}\n").unwrap();
    grid::write_png(run.join("samples/step-000003.png"), &picture, &[]).unwrap();
    browser.until("document.getElementById('run-about').textContent.includes('3 steps, loss 0.4000')");
    browser.until("document.querySelector('#run-pictures img')?.naturalWidth === 2");
    let pictures = browser.text("#run-pictures");
    assert!(pictures.contains("samples-step-000003"), "{pictures}");
    assert!(
        pictures.contains("by the weights as they were trained"),
        "{pictures}"
    );
    // Losses stand on the axis, and not their logarithms.
    let chart = browser.text("#run-chart");
    assert!(
        chart.contains("logarithmic axis") && chart.contains("0.4"),
        "{chart}"
    );
    assert!(!chart.contains('-'), "{chart}");
    assert_quiet(&browser);
}

#[test]
fn every_option_has_a_control_and_those_of_other_models_are_hidden() {
    let server = Server::latent(ServerOptions::default());
    let Some(browser) = open(
        &server,
        "#model=xl&prompt=a+hill&seed=5&steps=2&sampler=euler",
        DESKTOP,
    ) else {
        return;
    };
    let description = server.get("/api/openapi.json").json();
    let fields = description["components"]["schemas"]["GenerateRequest"]["properties"]
        .as_object()
        .unwrap();
    // Other controls stand for these.
    let by_hand = ["scheduler", "guide", "inpaint", "mask", "previews"];
    for field in fields.keys().filter(|field| !by_hand.contains(&field.as_str())) {
        let is_there = format!("return Boolean(document.getElementById('settings').elements.{field});");
        assert!(browser.run(&is_there) == true, "{field}");
    }
    let is_shown = |field: &str| {
        browser.run(&format!(
            "return document.getElementById('settings').elements.{field}.closest('#settings [hidden]') === null;"
        )) == true
    };
    assert!(
        is_shown("original_size") && is_shown("seeds") && !is_shown("depth") && !is_shown("aesthetic_score")
    );
    for (field, value) in [
        ("original_size", "64x64"),
        ("crop_top_left", "0,8"),
        ("guidance_rescale", "0.5"),
    ] {
        browser.set(field, value);
    }
    draw(&browser);
    let asked = json!({
        "model": "xl", "prompt": "a hill", "seed": 5, "steps": 2, "sampler": "euler", "original_size": "64x64", "crop_top_left": "0,8",
        "guidance_rescale": 0.5
    });
    assert_eq!(shown(&browser), answered(&server, &asked));
    let link = browser.run("return location.hash;");
    assert!(link.as_str().unwrap().contains("original_size=64x64"), "{link}");
    // What is no size is said by the browser, before anything is sent.
    browser.set("original_size", "large");
    assert!(
        browser.run("return document.getElementById('settings').elements.original_size.checkValidity();")
            == false
    );
    browser.set("model", "sd");
    browser.until(
        "document.getElementById('settings').elements.original_size.closest('#settings [hidden]') !== null",
    );
    assert_quiet(&browser);
}

#[test]
fn a_model_that_is_not_in_memory_is_loaded_when_it_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let mut models = Models::default();
    for (name, grey) in [("colour", false), ("grey", true)] {
        let path = folder.path().join(name);
        save_model(&path, grey);
        models
            .add(name, path, &LoadOptions::default(), &default_device())
            .unwrap();
    }
    let server = Server::with(folder, models, ServerOptions::default());
    let Some(browser) = open(&server, "#sampler=ddim&steps=2&seed=3&count=1", DESKTOP) else {
        return;
    };
    assert!(browser.text("#about-model").contains("in colour"));
    browser.set("model", "grey");
    browser.until("document.getElementById('about-model').textContent.includes('in greys')");
    browser.set("class", "light");
    // A sampler brings its usual steps.
    browser.set("sampler", "ddim");
    browser.set("steps", "2");
    draw(&browser);
    let asked = json!({ "model": "grey", "class": "light", "sampler": "ddim", "steps": 2, "seed": 3 });
    assert_eq!(shown(&browser), answered(&server, &asked));
    assert_quiet(&browser);
}

#[test]
fn a_key_is_asked_for_once() {
    let server = Server::start(ServerOptions {
        api_key: Some("open sesame".into()),
        ..ServerOptions::default()
    });
    let Some(browser) = Browser::open(DESKTOP[0], DESKTOP[1]) else {
        println!("{MISSING}");
        return;
    };
    browser.go(&format!("http://{}/", server.address));
    browser.until("document.getElementById('key').open");
    browser.keys("#key input", "open sesame\u{E007}");
    browser.until("document.documentElement.dataset.ready");
    browser.go(&format!("http://{}/#seed=3", server.address));
    browser.until("document.documentElement.dataset.ready");
    assert_eq!(browser.run("return document.getElementById('key').open;"), false);
}

#[test]
fn it_can_be_used_by_keyboard_alone() {
    let server = Server::start(ServerOptions::default());
    let Some(browser) = open(&server, "#model=grey&sampler=ddim&steps=3&count=1", DESKTOP) else {
        return;
    };
    // Arrows go from tab to tab.
    browser.run("document.getElementById('tab-draw').focus();");
    browser.keys("#tab-draw", "\u{E014}");
    browser.until(
        "!document.getElementById('view-schedule').hidden && document.activeElement.id === 'tab-schedule'",
    );
    browser.until("document.querySelectorAll('#schedule-charts svg').length === 3");
    browser.keys("#tab-schedule", "\u{E012}");
    browser.until("!document.getElementById('view-draw').hidden");
    // Enter in a field draws, and Escape closes what a result opened.
    browser.keys("[name=seed]", "\u{E007}");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    browser.keys("#gallery button", "\u{E007}");
    browser.until("document.getElementById('shown').open");
    browser.keys("#shown [data-do=close]", "\u{E00C}");
    browser.until("!document.getElementById('shown').open");
    assert_quiet(&browser);
}

/// Serious findings of axe on the page as it is.
fn serious(browser: &Browser, axe: &str) -> Vec<String> {
    browser.run(axe);
    let found = browser.wait_for(
        "axe.run().then(({ violations }) => violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
           .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' | ')}`))",
    );
    let found: Vec<Value> = serde_json::from_value(found.clone()).unwrap_or_else(|_| panic!("{found}"));
    found.iter().map(Value::to_string).collect()
}

#[test]
fn nothing_keeps_anybody_out() {
    let server = Server::start(ServerOptions::default());
    let Some(axe) = axe() else {
        println!("skipped: axe-core is not in target/axe (`.ci/run` fetches it where npm is)");
        return;
    };
    for (theme, size) in [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)] {
        let Some(browser) = open(&server, "#model=grey&sampler=ddim&steps=4&count=2", size) else {
            return;
        };
        browser.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] }),
        );
        let check = |what: &str| {
            let found = serious(&browser, &axe);
            assert!(found.is_empty(), "{theme}, {size:?}, {what}: {found:#?}");
        };
        browser.run("for (const details of document.querySelectorAll('details')) details.open = true;");
        check("the form");
        browser.run("document.getElementById('settings').requestSubmit();");
        browser.until("document.querySelectorAll('#gallery li').length > 0");
        check("a result");
        let fits = || browser.run("return document.documentElement.scrollWidth <= innerWidth;") == true;
        assert!(fits(), "the page is wider than its window: {size:?}");
        browser.run("document.querySelector('#gallery button').click();");
        check("the dialog");
        browser.run(
            "document.getElementById('shown').close(); document.getElementById('tab-schedule').click();",
        );
        browser.until("document.querySelectorAll('#schedule-charts svg').length === 3");
        check("the schedule");
        assert!(fits(), "the schedule is wider than its window: {size:?}");
        browser.go(&format!("http://{}/docs", server.address));
        browser.until("document.querySelectorAll('#operations section').length > 8");
        check("the API's page");
    }
}

/// Writes how the page looks with tiny models of latents into the folder that `LANGEVIN_SCREENSHOTS` names.
#[test]
fn screenshots_of_latents_are_taken_where_asked() {
    let Ok(shots) = env::var("LANGEVIN_SCREENSHOTS") else {
        println!("skipped: LANGEVIN_SCREENSHOTS names no folder for pictures of the page");
        return;
    };
    let server = Server::latent(ServerOptions::default());
    let path = server.folder.path().join("wide.png");
    let pixels = (0..600 * 400).flat_map(|i| [(i % 600 * 255 / 600) as u8, (i / 600 * 255 / 400) as u8, 90]);
    let picture = Picture::new(400, 600, Channels::Rgb, pixels.collect()).unwrap();
    grid::write_png(&path, &picture, &[]).unwrap();
    let link = "#model=sd&steps=6&seed=7&prompt=a+lighthouse+in+a+storm,+oil+on+canvas&negative_prompt=blur&size=256x192";
    for (name, size, theme) in [
        ("desktop", DESKTOP, "light"),
        ("phone", PHONE, "light"),
        ("desktop-dark", DESKTOP, "dark"),
    ] {
        let Some(browser) = open(&server, link, size) else {
            return;
        };
        browser.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] }),
        );
        let shoot = |what: &str, whole: bool| {
            fs::write(
                Path::new(&shots).join(format!("latents-{what}-{name}.png")),
                browser.screenshot(whole),
            )
            .unwrap();
        };
        shoot("form", false);
        browser.run("document.getElementById('settings').requestSubmit();");
        browser.until("document.querySelectorAll('#strip li').length > 3");
        shoot("drawing", false);
        browser.until("document.querySelectorAll('#gallery li').length === 1");
        shoot("drawn", size == PHONE);
        browser.run("document.querySelector('#gallery button').click();");
        shoot("result", false);
        browser.run(
            "document.getElementById('shown').close(); document.getElementById('details-init').open = true;",
        );
        browser.keys("[name=init_image]", path.to_str().unwrap());
        browser.until("document.querySelector('#init-shown img').naturalWidth === 600");
        browser.run("document.getElementById('settings').elements.paint.click();");
        browser.run("document.getElementById('paint-mask').click();");
        browser.until("document.getElementById('easel').open");
        browser.drag("#mask", [0.2, 0.2], [0.7, 0.6]);
        browser.drag("#mask", [0.3, 0.8], [0.6, 0.8]);
        shoot("easel", false);
        browser.click("#easel [data-do=done]");
        browser.until("document.getElementById('about-mask').textContent.includes('%')");
        browser.run("document.getElementById('painting').scrollIntoView({ block: 'center' });");
        shoot("painting", false);
        browser.go(&format!("http://{}/docs", server.address));
        browser.until("document.querySelectorAll('#operations section').length > 8");
        shoot("docs", false);
    }
}

/// Draws with the model in the folder that `LANGEVIN_SHOW` names, and writes how the page looks into the folder that
/// `LANGEVIN_SCREENSHOTS` names: the pictures of `docs/serve.md`.
#[test]
fn screenshots_are_taken_where_asked() {
    let (Ok(model), Ok(shots)) = (env::var("LANGEVIN_SHOW"), env::var("LANGEVIN_SCREENSHOTS")) else {
        println!(
            "skipped: LANGEVIN_SHOW and LANGEVIN_SCREENSHOTS name no model and no folder for pictures of the page"
        );
        return;
    };
    let model = Path::new(&model);
    let mut models = Models::default();
    models
        .load("digits-1", model, &LoadOptions::default(), &default_device())
        .unwrap();
    let options = ServerOptions {
        runs: model.parent().map(Path::to_path_buf),
        ..ServerOptions::default()
    };
    let server = Server::with(tempfile::tempdir().unwrap(), models, options);
    let link = "#model=digits-1&sampler=ddim&steps=50&seed=7&count=16&guidance_scale=2";
    for (name, size, theme) in [
        ("desktop", DESKTOP, "light"),
        ("phone", PHONE, "light"),
        ("desktop-dark", DESKTOP, "dark"),
    ] {
        let Some(browser) = open(&server, link, size) else {
            return;
        };
        browser.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] }),
        );
        let shoot = |what: &str, whole: bool| {
            fs::write(
                Path::new(&shots).join(format!("serve-{what}-{name}.png")),
                browser.screenshot(whole),
            )
            .unwrap();
        };
        browser.run("for (const details of document.querySelectorAll('details')) details.open = false;");
        for (number, class) in ["3", "8", "5", ""].iter().enumerate() {
            browser.set("class", class);
            browser.set("seed", &(7 + number).to_string());
            browser.run("document.getElementById('settings').requestSubmit();");
            browser.until(&format!(
                "document.querySelectorAll('#gallery li').length === {}",
                number + 1
            ));
        }
        shoot("draw", size == PHONE);
        browser.run("document.querySelector('#gallery li:last-child button').click();");
        shoot("result", false);
        browser.run(
            "document.getElementById('shown').close(); document.getElementById('tab-schedule').click();",
        );
        browser.until("document.querySelectorAll('#schedule-charts svg').length === 3");
        shoot("schedule", size == PHONE);
        browser.run("document.getElementById('tab-training').click();");
        browser.until("document.querySelectorAll('#run-chart svg').length === 1");
        browser.run("document.getElementById('run').value = 'digits-1'; document.getElementById('run').dispatchEvent(new Event('change'));");
        browser.until("document.querySelectorAll('#run-pictures li').length > 0");
        shoot("training", size == PHONE);
        browser.go(&format!("http://{}/docs", server.address));
        browser.until("document.querySelectorAll('#operations section').length > 8");
        shoot("docs", false);
    }
}
