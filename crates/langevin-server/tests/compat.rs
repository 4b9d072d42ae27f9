//! Requests as the clients of other programs' APIs send them.

mod support;

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    Pipeline, Request,
    conditioning::PromptSyntax,
    data::{Channels, Picture, decode_picture},
    device::default_device,
    grid,
    guidance::ClassifierFree,
    options::UpscaleBy,
};
use langevin_server::ServerOptions;
use serde_json::{Value, json};
use support::{Answer, Server, latent_model};

fn post(server: &Server, path: &str, body: &Value) -> Answer {
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ];
    server.call("POST", path, &headers, body.to_string().as_bytes())
}

fn picture(base64: &Value) -> Picture {
    decode_picture(&STANDARD.decode(base64.as_str().unwrap()).unwrap(), 4096, "it").unwrap()
}

/// What the library draws alone.
fn generated(request: &Request) -> Picture {
    let pipeline = Pipeline::load(latent_model("sd").unwrap(), &default_device()).unwrap();
    pipeline.generate(request).unwrap().remove(0)
}

/// What the Python package webuiapi sends for a text: every field, most of them as they are by default.
fn webuiapi(changes: Value) -> Value {
    let mut body = json!({
        "enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0, "hr_resize_x": 0, "hr_resize_y": 0,
        "denoising_strength": 0.7, "firstphase_width": 0, "firstphase_height": 0, "prompt": "a lighthouse", "styles": [], "seed": 7,
        "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_h": 0, "seed_resize_from_w": 0, "batch_size": 1, "n_iter": 1, "steps": 4,
        "cfg_scale": 5.0, "width": 32, "height": 48, "restore_faces": false, "tiling": false, "do_not_save_samples": false,
        "do_not_save_grid": false, "negative_prompt": "blur", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1,
        "override_settings": {}, "override_settings_restore_afterwards": true, "sampler_name": "Euler a", "script_name": null,
        "script_args": [], "send_images": true, "save_images": false, "alwayson_scripts": {}
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn asked() -> Request {
    Request {
        prompt: vec!["a lighthouse".into()],
        negative_prompt: vec!["blur".into()],
        steps: Some(4),
        seed: 7,
        size: Some("32x48".parse().unwrap()),
        scheduler: Some("euler-a".into()),
        guidance: ClassifierFree::of_scale(5.0),
        // Texts mean what they mean there.
        prompt_syntax: PromptSyntax::A1111,
        ..Request::default()
    }
}

#[test]
fn a1111_s_clients_get_pictures() {
    let server = Server::latent(ServerOptions::default());
    let answer = post(&server, "/sdapi/v1/txt2img", &webuiapi(json!({})))
        .expect(200)
        .json();
    assert_eq!(picture(&answer["images"][0]), generated(&asked()));
    assert_eq!(answer["parameters"]["steps"], 4);
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&info["seed"], &info["width"], &info["height"]),
        (&json!(7), &json!(32), &json!(48))
    );
    assert_eq!(
        (&info["sd_model_name"], &info["all_seeds"]),
        (&json!("sd"), &json!([7]))
    );

    // As SillyTavern has it: noise levels beside the sampler, settings for this request, layers to leave out, two pictures.
    let silly = json!({
        "prompt": "a lighthouse", "negative_prompt": "blur", "sampler_name": "DPM++ 2M", "scheduler": "Karras", "steps": 4, "cfg_scale": 5,
        "width": 32, "height": 48, "restore_faces": false, "enable_hr": false, "hr_upscaler": "Latent", "hr_scale": 2,
        "denoising_strength": 0.7, "hr_second_pass_steps": 0, "override_settings": { "CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "sd.safetensors [6ce0161689]" },
        "override_settings_restore_afterwards": true, "clip_skip": 2, "save_images": true, "send_images": true, "do_not_save_grid": false,
        "do_not_save_samples": false, "n_iter": 2, "seed": 7
    });
    let answer = post(&server, "/sdapi/v1/txt2img", &silly).expect(200).json();
    assert_eq!(answer["images"].as_array().unwrap().len(), 2);
    let request = Request {
        scheduler: Some("dpm++2m-karras".into()),
        clip_skip: Some(1),
        ..asked()
    };
    assert_eq!(picture(&answer["images"][0]), generated(&request));
    // A second pass at a larger size.
    let hires = webuiapi(json!({
        "enable_hr": true, "hr_scale": 1.5, "hr_upscaler": "Latent (bicubic)", "hr_second_pass_steps": 2, "denoising_strength": 0.6,
        "hr_sampler_name": "Euler a", "hr_checkpoint_name": "Use same checkpoint", "hr_prompt": "",
    }));
    let answer = post(&server, "/sdapi/v1/txt2img", &hires).expect(200).json();
    let request = Request {
        upscale: Some(1.5),
        upscale_by: UpscaleBy::LatentBicubic,
        upscale_steps: Some(2),
        upscale_strength: Some(0.6),
        upscale_scheduler: Some("euler-a".into()),
        ..asked()
    };
    let larger = generated(&request);
    assert_eq!((larger.height(), larger.width()), (72, 48));
    assert_eq!(picture(&answer["images"][0]), larger);
    // No seed and -1 are any seed.
    let seeds: Vec<Value> = (0..2)
        .map(|_| {
            let answer = post(
                &server,
                "/sdapi/v1/txt2img",
                &webuiapi(json!({ "seed": -1, "steps": 1 })),
            )
            .expect(200)
            .json();
            serde_json::from_str::<Value>(answer["info"].as_str().unwrap()).unwrap()["seed"].clone()
        })
        .collect();
    assert_ne!(seeds[0], seeds[1]);
    let options = server.get("/sdapi/v1/options").expect(200).json();
    assert_eq!(options["sd_model_checkpoint"], "sd");
    server.call("POST", "/sdapi/v1/options", &[], b"{}").expect(405);
    assert_eq!(server.get("/sdapi/v1/sd-models").json()[0]["model_name"], "sd");
    assert!(server.get("/sdapi/v1/samplers").json().as_array().unwrap().len() > 20);
}

#[test]
fn a1111_s_clients_begin_with_pictures_and_paint_in_them() {
    let server = Server::latent(ServerOptions::default());
    let colours = (0..32 * 32).flat_map(|i| [(i % 251) as u8, (i / 7 % 256) as u8, 90]);
    let begun = Picture::new(32, 32, Channels::Rgb, colours.collect()).unwrap();
    let mask = Picture::new(
        32,
        32,
        Channels::Grey,
        (0..1024).map(|i| if i % 32 < 16 { 255 } else { 0 }).collect(),
    )
    .unwrap();
    let encoded = |picture: &Picture| {
        format!(
            "data:image/png;base64,{}",
            STANDARD.encode(grid::png_bytes(picture).unwrap())
        )
    };
    let body = webuiapi(json!({
        "height": 32, "init_images": [encoded(&begun)], "denoising_strength": 0.5, "resize_mode": 0, "image_cfg_scale": null,
        "mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": true, "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0,
        "initial_noise_multiplier": 1, "include_init_images": false
    }));
    let request = Request {
        size: Some("32x32".parse().unwrap()),
        init_image: Some(begun.clone().into()),
        strength: Some(0.5),
        ..asked()
    };
    let answer = post(&server, "/sdapi/v1/img2img", &body).expect(200).json();
    assert_eq!(picture(&answer["images"][0]), generated(&request));
    assert!(answer["parameters"].get("init_images").is_none());

    let body = webuiapi(json!({
        "height": 32, "init_images": [encoded(&begun)], "denoising_strength": 1.0, "mask": encoded(&mask), "mask_blur": 0,
        "inpainting_fill": 1, "inpaint_full_res": false
    }));
    let request = Request {
        init_image: None,
        inpaint: Some(begun.into()),
        mask: Some(mask.into()),
        strength: Some(1.0),
        ..request
    };
    let answer = post(&server, "/sdapi/v1/img2img", &body).expect(200).json();
    assert_eq!(picture(&answer["images"][0]), generated(&request));
}

#[test]
fn what_a1111_has_and_this_server_has_not_is_refused_by_name() {
    let server = Server::latent(ServerOptions::default());
    let refused = |path: &str, changes: Value, field: &str, parts: &[&str]| {
        let answer = post(&server, path, &webuiapi(changes.clone())).refused(422, parts);
        assert_eq!(
            (&answer["field"], &answer["detail"]),
            (&json!(field), &answer["error"]),
            "{changes}: {answer}"
        );
    };
    let txt2img = "/sdapi/v1/txt2img";
    refused(
        txt2img,
        json!({ "enable_hr": true, "hr_upscaler": "R-ESRGAN 4x+" }),
        "hr_upscaler",
        &["`hr_upscaler`", "R-ESRGAN 4x+"],
    );
    refused(
        txt2img,
        json!({ "enable_hr": true, "hr_prompt": "a cat" }),
        "hr_prompt",
        &["`hr_prompt`"],
    );
    refused(
        txt2img,
        json!({ "enable_hr": true, "hr_resize_x": "x" }),
        "hr_resize_x",
        &["`hr_resize_x`"],
    );
    refused(
        txt2img,
        json!({ "enable_hr": true, "hr_scale": 64 }),
        "hr_scale",
        &[],
    );
    refused(
        txt2img,
        json!({ "restore_faces": true }),
        "restore_faces",
        &["restore_faces"],
    );
    refused(txt2img, json!({ "styles": ["film"] }), "styles", &["film"]);
    refused(
        txt2img,
        json!({ "alwayson_scripts": { "controlnet": {} } }),
        "alwayson_scripts",
        &["controlnet"],
    );
    refused(
        txt2img,
        json!({ "subseed": 4, "subseed_strength": 0.5 }),
        "subseed",
        &["subseed"],
    );
    refused(txt2img, json!({ "s_churn": 0.5 }), "s_churn", &["s_churn"]);
    refused(
        txt2img,
        json!({ "sampler_name": "Restart" }),
        "sampler_name",
        &["Restart", "euler-a"],
    );
    refused(
        txt2img,
        json!({ "scheduler": "Exponential" }),
        "sampler_name",
        &["exponential"],
    );
    refused(
        txt2img,
        json!({ "override_settings": { "eta_noise_seed_delta": 31337 } }),
        "override_settings.eta_noise_seed_delta",
        &["31337"],
    );
    refused(
        txt2img,
        json!({ "override_settings": { "sd_model_checkpoint": "other" } }),
        "override_settings",
        &["`other`", "sd"],
    );
    // Numbers beyond what may be, under the names that they were sent by.
    refused(
        txt2img,
        json!({ "cfg_scale": 1e9 }),
        "cfg_scale",
        &["-1000 to 1000"],
    );
    refused(
        txt2img,
        json!({ "batch_size": 100 }),
        "batch_size",
        &["64 at most"],
    );
    refused(txt2img, json!({ "width": 33 }), "width", &["divisible by 2"]);
    refused(txt2img, json!({ "width": "wide" }), "width", &["wide"]);
    refused("/sdapi/v1/img2img", json!({}), "init_images", &["init_images"]);
    post(&server, txt2img, &json!([])).refused(422, &["JSON object"]);
}

#[test]
fn openai_s_clients_get_pictures() {
    let server = Server::latent(ServerOptions::default());
    let path = "/v1/images/generations";
    let body = json!({ "model": "sd", "prompt": "a lighthouse", "n": 2, "size": "32x48", "response_format": "b64_json", "quality": "standard", "user": "somebody" });
    let answer = post(&server, path, &body).expect(200).json();
    assert!(answer["created"].as_u64().unwrap() > 1_600_000_000);
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(picture(&answer["data"][0]["b64_json"]).width(), 32);
    // With fields of this server's own beside theirs.
    let body = json!({
        "model": "sd", "prompt": "a lighthouse", "n": 1, "size": "32x48", "seed": 7, "steps": 4, "scheduler": "euler-a", "guidance_scale": 5,
        "negative_prompt": "blur", "prompt_syntax": "a1111", "background": "auto", "moderation": "auto", "output_format": "png", "quality": "auto"
    });
    let answer = post(&server, path, &body).expect(200).json();
    assert_eq!(picture(&answer["data"][0]["b64_json"]), generated(&asked()));

    let refused = |changes: Value, param: &str, part: &str| {
        let mut body = json!({ "model": "sd", "prompt": "a lighthouse" });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        let error = post(&server, path, &body).expect(422).json()["error"].clone();
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!(param), &json!("invalid_request_error")),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    };
    refused(json!({ "model": "dall-e-3" }), "model", "there are sd");
    refused(json!({ "n": 100 }), "n", "64 at most");
    refused(json!({ "response_format": "url" }), "response_format", "url");
    refused(json!({ "quality": "hd" }), "quality", "hd");
    refused(json!({ "style": "vivid" }), "style", "vivid");
    refused(json!({ "stream": true }), "stream", "stream");
    refused(json!({ "size": "1792x" }), "size", "1792x");
}

#[test]
fn the_key_is_asked_for_there_too() {
    let server = Server::start(ServerOptions {
        api_key: Some("open sesame".into()),
        ..ServerOptions::default()
    });
    for path in ["/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/v1/images/generations"] {
        post(&server, path, &json!({})).expect(401);
    }
    server.get("/sdapi/v1/options").expect(401);
}
