use std::io::{BufRead, BufReader, Write};
use veritas_sandbox::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("worker") {
        worker();
        return;
    }
    let t = std::time::Instant::now();
    refuse_network().unwrap();
    eprintln!("refuse_network {:?} refused {}", t.elapsed(), network_refused());
    let policy = Policy::default();
    let t = std::time::Instant::now();
    let mut w = spawn(SpawnSpec { args: &["worker"], descriptors: vec![], policy: &policy }).unwrap();
    eprintln!("spawned {:?}", t.elapsed());
    let mut s = w.take_socket().unwrap();
    let mut l = serde_json::to_string(&(&policy, Limits::default(), w.facts())).unwrap();
    l.push('\n');
    s.write_all(l.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(&s).read_line(&mut line).unwrap();
    eprintln!("confined {:?}", t.elapsed());
    eprintln!("{line}");
    drop(s);
    eprintln!("{:?}", w.wait());
}
fn worker() {
    let Inherited { socket, .. } = inherited(0).unwrap();
    let mut line = String::new();
    let mut r = BufReader::new(&socket);
    r.read_line(&mut line).unwrap();
    let (policy, limits, facts): (Policy, Limits, SpawnFacts) = serde_json::from_str(&line).unwrap();
    let out = match confine(&policy, &limits, &facts, || Ok::<_, std::io::Error>(())) {
        Ok((_, r)) => serde_json::to_string(&r).unwrap(),
        Err(e) => e.to_string(),
    };
    (&socket).write_all(out.as_bytes()).unwrap();
    (&socket).write_all(b"\n").unwrap();
    std::process::exit(7);
}
