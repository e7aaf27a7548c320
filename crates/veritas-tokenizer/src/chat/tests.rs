use super::*;
use serde_json::Value as Json;

fn chats(d: &Json) -> Vec<(&'static str, ChatInput)> {
    let i = &d["inputs"];
    let chat = |messages: &Json, tools: Option<&Json>| ChatInput {
        messages: messages.clone(),
        tools: tools.cloned(),
        add_generation_prompt: true,
        enable_thinking: Some(false),
        bos_token: "<s>".into(),
        eos_token: "</s>".into(),
        now: Date::new(2026, 1, 2).expect("a day"),
        extra: Default::default(),
    };
    vec![
        ("system", chat(&i["system"], None)),
        ("nosys", chat(&i["nosys"], None)),
        ("tools", chat(&i["nosys"], Some(&i["tools"]))),
        ("tool_result", chat(&i["tool_result"], Some(&i["tools"]))),
    ]
}

#[test]
fn templates_render_as_jinja2_renders_them() {
    let Some(path) = veritas_testkit::test_data("tokenizers/templates-expected.json") else { return };
    let folder = path.parent().expect("a folder").join("templates");
    let expected: Json =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("readable")).expect("JSON");
    let (mut equal, mut wrong) = (0, Vec::new());
    for (name, renders) in expected["render"].as_object().expect("an object") {
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).expect("readable");
        let template = match ChatTemplate::new(&source) {
            Ok(t) => t,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        for (chat, input) in chats(&expected) {
            let got = template.render(&input);
            match (&renders[chat], got) {
                (Json::String(want), Ok(got)) if *want == got => equal += 1,
                (Json::String(want), Ok(got)) => {
                    let at = want.bytes().zip(got.bytes()).take_while(|(a, b)| a == b).count();
                    let cut = |s: &str| {
                        String::from_utf8_lossy(&s.as_bytes()[at.saturating_sub(30)..s.len().min(at + 60)])
                            .into_owned()
                    };
                    wrong.push(format!("{name} {chat}: got {:?} want {:?}", cut(&got), cut(want)));
                }
                (Json::String(_), Err(e)) => wrong.push(format!("{name} {chat}: {e}")),
                // Where the fixture has an error, ours may be one or a text.
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{equal} equal, {} not:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(equal, 247, "every text of the file");
}
