//! The samplers once more, each as its definition reads, on plain lists of (id, logit) sorted afresh each time. Slow,
//! allocating, written apart from the real ones, and what they are tested against.

use std::collections::{BTreeMap, HashSet};

use super::params::{SamplerKind, SamplingParams};

/// (id, logit), where the logit is an f32 value.
pub(super) type List = Vec<(u32, f64)>;

fn likeliest_first(list: &List) -> List {
    let mut sorted = list.clone();
    sorted.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    sorted
}

/// (id, probability), likeliest first.
pub(super) fn probabilities(list: &List) -> Vec<(u32, f64)> {
    let sorted = likeliest_first(list);
    let max = sorted[0].1;
    let sum: f64 = sorted.iter().map(|c| (c.1 - max).exp()).sum();
    sorted.iter().map(|c| (c.0, (c.1 - max).exp() / sum)).collect()
}

fn keep(list: &List, ids: impl IntoIterator<Item = u32>) -> List {
    let ids: HashSet<u32> = ids.into_iter().collect();
    list.iter().copied().filter(|c| ids.contains(&c.0)).collect()
}

fn round(x: f64) -> f64 {
    f64::from((x as f32).clamp(f32::MIN, f32::MAX))
}

fn look_back(history: &[u32], last_n: i32) -> &[u32] {
    let n = if last_n < 0 { history.len() } else { history.len().min(last_n as usize) };
    &history[history.len() - n..]
}

fn penalties(list: &List, p: &SamplingParams, history: &[u32]) -> List {
    let mut counts = BTreeMap::new();
    for id in look_back(history, p.repeat_last_n) {
        *counts.entry(*id).or_insert(0u32) += 1;
    }
    let penalise = |(id, logit): (u32, f64)| match counts.get(&id) {
        None => (id, logit),
        Some(&n) => {
            let by = f64::from(p.repeat_penalty);
            let scaled = if logit > 0.0 { logit / by } else { logit * by };
            (
                id,
                round(
                    scaled - (f64::from(n) * f64::from(p.frequency_penalty) + f64::from(p.presence_penalty)),
                ),
            )
        }
    };
    list.iter().copied().map(penalise).collect()
}

/// DRY where each breaker is one token: for each earlier occurrence of the token, count how far the text before it
/// agrees with the end of the text.
fn dry(list: &List, p: &SamplingParams, history: &[u32], breakers: &[u32]) -> List {
    let window = look_back(history, p.dry_penalty_last_n);
    let limit = window.iter().rev().take_while(|id| !breakers.contains(id)).count();
    let allowed = p.dry_allowed_length as usize;
    let off = p.dry_multiplier == 0.0 || p.dry_base < 1.0 || window.len() <= allowed || limit < allowed;
    let penalise = |(id, logit): (u32, f64)| {
        let agreement = |at: usize| {
            let (before, all) = (&window[..at], window);
            before.iter().rev().zip(all.iter().rev()).take_while(|(a, b)| a == b).count().min(limit)
        };
        let occurrences = (1..window.len()).filter(|&at| window[at] == id);
        match occurrences.map(agreement).max() {
            Some(length) if length >= allowed && !breakers.contains(&id) && !off => {
                let power = f64::from(p.dry_base).powi((length - allowed) as i32);
                (id, round(logit - f64::from(p.dry_multiplier) * power))
            }
            _ => (id, logit),
        }
    };
    list.iter().copied().map(penalise).collect()
}

fn top_n_sigma(list: &List, n: f32) -> List {
    if n <= 0.0 || list.len() < 2 {
        return list.clone();
    }
    let mean = list.iter().map(|c| c.1).sum::<f64>() / list.len() as f64;
    let variance = list.iter().map(|c| (c.1 - mean).powi(2)).sum::<f64>() / list.len() as f64;
    let max = likeliest_first(list)[0].1;
    list.iter().copied().filter(|c| c.1 >= max - f64::from(n) * variance.sqrt()).collect()
}

fn top_k(list: &List, k: i32) -> List {
    let n = if k <= 0 { list.len() } else { k as usize };
    keep(list, likeliest_first(list).iter().take(n).map(|c| c.0))
}

fn top_p(list: &List, p: f32, min_keep: usize) -> List {
    if p >= 1.0 {
        return list.clone();
    }
    let (mut kept, mut sum) = (Vec::new(), 0.0);
    for (id, probability) in probabilities(list) {
        if kept.is_empty() || sum < f64::from(p) || kept.len() < min_keep {
            kept.push(id);
            sum += probability;
        }
    }
    keep(list, kept)
}

fn min_p(list: &List, p: f32, min_keep: usize) -> List {
    let all = probabilities(list);
    let good = all.iter().filter(|c| c.1 >= f64::from(p) * all[0].1).count();
    keep(list, all[..good.max(min_keep).min(all.len())].iter().map(|c| c.0))
}

fn typical(list: &List, p: f32, min_keep: usize) -> List {
    if p >= 1.0 {
        return list.clone();
    }
    let all = probabilities(list);
    let logit = |id: u32| list.iter().find(|c| c.0 == id).unwrap().1;
    // ln p from the logits, since p itself may be 0 in f64.
    let surprise = |id: u32| logit(all[0].0) - logit(id) - all[0].1.ln();
    let entropy: f64 = all.iter().map(|c| c.1 * surprise(c.0)).sum();
    // Rounded, so that what ties mathematically ties here too.
    let shift = |id: u32| ((surprise(id) - entropy).abs() * 1e9).round();
    let mut by_shift = all.clone();
    by_shift.sort_by(|a, b| shift(a.0).partial_cmp(&shift(b.0)).unwrap().then(a.0.cmp(&b.0)));
    let (mut kept, mut sum) = (Vec::new(), 0.0);
    for (id, probability) in by_shift {
        if sum <= f64::from(p) || kept.len() < min_keep {
            kept.push(id);
            sum += probability;
        }
    }
    keep(list, kept)
}

fn xtc(list: &List, p: &SamplingParams, chance: f64) -> List {
    let all = probabilities(list);
    let top: Vec<u32> = all.iter().filter(|c| c.1 >= f64::from(p.xtc_threshold)).map(|c| c.0).collect();
    let acts = p.xtc_probability > 0.0 && chance <= f64::from(p.xtc_probability) && p.xtc_threshold <= 0.5;
    let dropped = top.len().saturating_sub(1);
    if !acts || dropped == 0 || list.len() - dropped < p.min_keep as usize {
        return list.clone();
    }
    keep(list, all[dropped..].iter().map(|c| c.0))
}

fn temperature(list: &List, p: &SamplingParams) -> List {
    let (base, range) = (f64::from(p.temperature), f64::from(p.dynatemp_range));
    let mut t = base;
    if range > 0.0 {
        if list.len() < 2 {
            return list.clone();
        }
        let positive = probabilities(list).into_iter().filter(|c| c.1 > 0.0);
        let entropy: f64 = positive.map(|c| -c.1 * c.1.ln()).sum();
        let share = entropy / (list.len() as f64).ln();
        let low = (base - range).max(0.0);
        t = low + (base + range - low) * share.min(1.0).powf(f64::from(p.dynatemp_exponent));
    }
    if t <= 0.0 {
        return top_k(list, 1);
    }
    list.iter().map(|c| (c.0, round(c.1 / t))).collect()
}

/// One sampler.
pub(super) fn apply(
    kind: SamplerKind,
    list: &List,
    p: &SamplingParams,
    history: &[u32],
    breakers: &[u32],
    chance: f64,
) -> List {
    let min_keep = p.min_keep as usize;
    match kind {
        SamplerKind::Penalties => penalties(list, p, history),
        SamplerKind::Dry => dry(list, p, history, breakers),
        SamplerKind::TopNSigma => top_n_sigma(list, p.top_n_sigma),
        SamplerKind::TopK => top_k(list, p.top_k),
        SamplerKind::TypP => typical(list, p.typical_p, min_keep),
        SamplerKind::TopP => top_p(list, p.top_p, min_keep),
        SamplerKind::MinP => min_p(list, p.min_p, min_keep),
        SamplerKind::Xtc => xtc(list, p, chance),
        SamplerKind::Temperature => temperature(list, p),
    }
}

/// The first candidate by id at which the cumulative probability exceeds `uniform`.
pub(super) fn draw(list: &List, uniform: f64) -> u32 {
    let mut all = probabilities(list);
    all.sort_by_key(|c| c.0);
    let mut sum = 0.0;
    for (id, probability) in &all {
        sum += probability;
        if sum > uniform {
            return *id;
        }
    }
    all[all.len() - 1].0
}

/// Mirostat 1 and 2 as the paper's algorithms read; updates mu and gives the token.
pub(super) fn mirostat(list: &List, p: &SamplingParams, mu: &mut f64, n_vocab: usize, uniform: f64) -> u32 {
    let all = probabilities(list);
    let kept = if p.mirostat == 1 {
        let pairs: Vec<(f64, f64)> = all
            .windows(2)
            .take(99)
            .enumerate()
            .map(|(i, w)| (((i + 2) as f64 / (i + 1) as f64).ln(), (w[0].1 / w[1].1).ln()))
            .collect();
        let s = pairs.iter().map(|(t, b)| t * b).sum::<f64>() / pairs.iter().map(|(t, _)| t * t).sum::<f64>();
        let e = s - 1.0;
        let k = ((e * 2f64.powf(*mu)) / (1.0 - (n_vocab as f64).powf(-e))).powf(1.0 / s);
        top_k(list, (k as i32).max(1))
    } else {
        let n = all.iter().filter(|c| -c.1.log2() <= *mu).count().max(1);
        top_k(list, n as i32)
    };
    let id = draw(&kept, uniform);
    let probability = probabilities(&kept).iter().find(|c| c.0 == id).unwrap().1;
    *mu -= f64::from(p.mirostat_eta) * (-probability.log2() - f64::from(p.mirostat_tau));
    id
}
