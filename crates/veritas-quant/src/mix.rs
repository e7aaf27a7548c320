//! File types: which type each tensor of a model gets when a user asks for `Q4_K_M`.
//!
//! A file type names a mix: most tensors get its base type, those that lose more get more bits (attention
//! values, the projection out of the feed-forward part in some layers, the output matrix), and small ones stay
//! as they are. The names, the numbers and the choices are those of llama.cpp, so that files and expectations
//! agree.
//!
//! # What it does not do
//! File types below Q2_K and those of ternary models are read but not written, and the exceptions that llama.cpp
//! makes for architectures which this project does not run are left out.

use crate::GgmlType;

/// `general.quantization_version` of the files that are written: the version of the block layouts.
pub const QUANTIZATION_VERSION: u32 = 2;

/// A mix of tensor types for a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // The spelling of the file names that users know.
#[allow(missing_docs)] // The names are the documentation: see `base_type`.
pub enum FileType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q2_K_S,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4_MOE,
}

use FileType::*;

/// One line a file type: the type, its number in `general.file_type`, its name, the type of most tensors.
const TABLE: [(FileType, u32, &str, GgmlType); 21] = [
    (F32, 0, "F32", GgmlType::F32),
    (F16, 1, "F16", GgmlType::F16),
    (BF16, 32, "BF16", GgmlType::BF16),
    (Q8_0, 7, "Q8_0", GgmlType::Q8_0),
    (Q4_0, 2, "Q4_0", GgmlType::Q4_0),
    (Q4_1, 3, "Q4_1", GgmlType::Q4_1),
    (Q5_0, 8, "Q5_0", GgmlType::Q5_0),
    (Q5_1, 9, "Q5_1", GgmlType::Q5_1),
    (Q2_K, 10, "Q2_K", GgmlType::Q2_K),
    (Q2_K_S, 21, "Q2_K_S", GgmlType::Q2_K),
    (Q3_K_S, 11, "Q3_K_S", GgmlType::Q3_K),
    (Q3_K_M, 12, "Q3_K_M", GgmlType::Q3_K),
    (Q3_K_L, 13, "Q3_K_L", GgmlType::Q3_K),
    (Q4_K_S, 14, "Q4_K_S", GgmlType::Q4_K),
    (Q4_K_M, 15, "Q4_K_M", GgmlType::Q4_K),
    (Q5_K_S, 16, "Q5_K_S", GgmlType::Q5_K),
    (Q5_K_M, 17, "Q5_K_M", GgmlType::Q5_K),
    (Q6_K, 18, "Q6_K", GgmlType::Q6_K),
    (IQ4_NL, 25, "IQ4_NL", GgmlType::IQ4_NL),
    (IQ4_XS, 30, "IQ4_XS", GgmlType::IQ4_XS),
    (MXFP4_MOE, 38, "MXFP4_MOE", GgmlType::MXFP4),
];

/// Other names: the medium mix is meant where none is named.
const ALIASES: [(&str, FileType); 3] = [("Q3_K", Q3_K_M), ("Q4_K", Q4_K_M), ("Q5_K", Q5_K_M)];

impl FileType {
    /// Every file type that can be written.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The file type with this name or alias, in any case, or `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = TABLE.iter().find(|row| row.2.eq_ignore_ascii_case(name)).map(|row| row.0);
        named.or_else(|| ALIASES.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map(|row| row.1))
    }

    /// The name, as llama.cpp spells it.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The number for `general.file_type`.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The type of the tensors that the mix does not single out.
    pub fn base_type(self) -> GgmlType {
        self.row().3
    }

    fn row(self) -> &'static (FileType, u32, &'static str, GgmlType) {
        &TABLE[self as usize]
    }
}

impl std::fmt::Display for FileType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the mixes need to know about a model.
#[derive(Clone, Debug)]
pub struct ModelFacts<'a> {
    /// `general.architecture`.
    pub architecture: &'a str,
    /// Layers.
    pub n_layers: usize,
    /// Query heads (of the first layer, where layers differ).
    pub n_heads: usize,
    /// Key and value heads (of the first layer, where layers differ).
    pub n_kv_heads: usize,
    /// Experts, 0 in dense models.
    pub n_experts: usize,
}

/// What the mixes need to know about a tensor.
#[derive(Clone, Debug)]
pub struct TensorFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type in the source.
    pub ty: GgmlType,
    /// Its extents in ggml's order: `dims[0]` is the length of a row.
    pub dims: &'a [u64],
}

/// What a user may ask for besides the file type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// All tensors that are quantised get the base type.
    pub pure: bool,
    /// The type of the output matrix (and of a token embedding that serves as the output matrix).
    pub output_tensor_type: Option<GgmlType>,
    /// The type of the token embedding.
    pub token_embedding_type: Option<GgmlType>,
    /// Whether importances are at hand: some mixes give fewer bits then.
    pub has_importance: bool,
}

/// The type of each tensor, in the order of `tensors`.
///
/// Tensors that are small or sensitive (vectors, norms, expert gates, position tables, convolutions, integers)
/// keep their type; with [`FileType::F32`] every floating-point and block tensor becomes F32. A row that is no
/// whole number of blocks gets the next larger type with blocks of 32, or F16.
pub fn tensor_types(
    file_type: FileType,
    model: &ModelFacts<'_>,
    tensors: &[TensorFacts<'_>],
    options: &Options,
) -> Vec<GgmlType> {
    let mut chooser = Chooser {
        file_type,
        model,
        options,
        tied: !tensors.iter().any(|tensor| Role::of(tensor.name) == Role::Output),
        n_values: tensors.iter().filter(|tensor| Role::of(tensor.name) == Role::Values).count(),
        values_seen: 0,
        downs_seen: 0,
    };
    // Choices count tensors, so they go through the layers in order, whatever the order of the file is.
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| (layer_of(tensors[i].name), tensors[i].name));
    let mut types: Vec<GgmlType> = tensors.iter().map(|tensor| tensor.ty).collect();
    for i in order {
        types[i] = chooser.choose(&tensors[i]);
    }
    types
}

/// Whether a tensor is quantised at all.
fn is_quantized(tensor: &TensorFacts<'_>) -> bool {
    /// Parts of names of tensors that stay as they are: tiny, or read by operations that need full precision.
    const KEPT: [&str; 31] = [
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
        "attn_rel_b.weight",
        ".position_embd",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "sam.",
    ];
    let is_matrix = tensor.dims.iter().skip(1).any(|&n| n > 1);
    is_matrix
        && !is_integer(tensor.ty)
        && tensor.name.ends_with("weight")
        && !["position_embd.weight", "token_types.weight"].contains(&tensor.name)
        && !KEPT.iter().any(|part| tensor.name.contains(part))
}

fn is_integer(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::I8 | GgmlType::I16 | GgmlType::I32 | GgmlType::I64)
}

/// The number after `blk.` in a name; `None` sorts before all layers.
fn layer_of(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("blk.")?;
    rest[..rest.find('.')?].parse().ok()
}

/// What a tensor does, as far as mixes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Output,
    TokenEmbedding,
    /// Attention values, also where they share a matrix with others: the most sensitive part of a layer.
    Values,
    Keys,
    AttentionOutput,
    Down,
    Other,
}

impl Role {
    fn of(name: &str) -> Self {
        const PARTS: [(&str, Role); 6] = [
            ("attn_qkv.weight", Role::Values),
            ("attn_kv_b.weight", Role::Values),
            ("attn_v.weight", Role::Values),
            ("attn_k.weight", Role::Keys),
            ("attn_output.weight", Role::AttentionOutput),
            ("ffn_down", Role::Down),
        ];
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Role::TokenEmbedding,
            _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Role::Other, |row| row.1),
        }
    }
}

/// The state of one walk through the tensors.
struct Chooser<'a> {
    file_type: FileType,
    model: &'a ModelFacts<'a>,
    options: &'a Options,
    /// The token embedding serves as the output matrix.
    tied: bool,
    n_values: usize,
    values_seen: usize,
    downs_seen: usize,
}

impl Chooser<'_> {
    fn choose(&mut self, tensor: &TensorFacts<'_>) -> GgmlType {
        let base = self.file_type.base_type();
        if self.file_type == F32 {
            return if is_integer(tensor.ty) { tensor.ty } else { base };
        }
        if !is_quantized(tensor) {
            return tensor.ty;
        }
        let role = Role::of(tensor.name);
        let asked = match role {
            Role::TokenEmbedding => self.options.token_embedding_type,
            Role::Output => self.options.output_tensor_type,
            _ => None,
        };
        let row_len = tensor.dims.first().copied().unwrap_or(1);
        if let Some(asked) = asked {
            return that_divides(asked, row_len);
        }
        if matches!(self.file_type, F16 | BF16) {
            return base;
        }
        let chosen = if self.options.pure { base } else { self.mixed(tensor, role, row_len) };
        that_divides(chosen, row_len)
    }

    /// The type that the mix gives to a tensor, whatever its row length.
    fn mixed(&mut self, tensor: &TensorFacts<'_>, role: Role, row_len: u64) -> GgmlType {
        let base = self.file_type.base_type();
        let is_output = role == Role::Output || (role == Role::TokenEmbedding && self.tied);
        if is_output {
            return match self.options.output_tensor_type {
                Some(asked) => asked,
                None if matches!(self.file_type, MXFP4_MOE | Q8_0) => GgmlType::Q8_0,
                None if !row_len.is_multiple_of(base.block_len() as u64) => GgmlType::Q8_0,
                None => GgmlType::Q6_K,
            };
        }
        if self.file_type == MXFP4_MOE {
            // Only the stacks of expert matrices have a third extent.
            let is_stack = tensor.dims.get(2).is_some_and(|&n| n > 1);
            return if is_stack { GgmlType::MXFP4 } else { GgmlType::Q8_0 };
        }
        match role {
            Role::Values => self.values(),
            // Keys are small where eight experts make everything else large.
            Role::Keys if self.model.n_experts == 8 => GgmlType::Q8_0,
            Role::AttentionOutput => self.attention_output(),
            Role::Down => self.down(tensor.name),
            _ => base,
        }
    }

    fn values(&mut self) -> GgmlType {
        let (seen, model) = (self.values_seen, self.model);
        self.values_seen += 1;
        let shared = model.n_heads.checked_div(model.n_kv_heads).is_some_and(|n| n >= 4);
        let ty = match self.file_type {
            Q2_K if shared => GgmlType::Q4_K,
            Q2_K => GgmlType::Q3_K,
            Q2_K_S if shared => GgmlType::Q4_K,
            Q3_K_M if seen < 2 => GgmlType::Q5_K,
            Q3_K_M => GgmlType::Q4_K,
            Q3_K_L => GgmlType::Q5_K,
            IQ4_NL | IQ4_XS if shared => GgmlType::Q5_K,
            Q4_K_M | Q5_K_M if deserves_more_bits(seen, self.n_values) => GgmlType::Q6_K,
            Q4_K_S if seen < 4 => GgmlType::Q5_K,
            other => other.base_type(),
        };
        let is_70b =
            model.architecture == "llama" && model.n_layers == 80 && model.n_heads != model.n_kv_heads;
        match ty {
            // With eight experts these matrices are a small part of the file.
            _ if model.n_experts == 8 => GgmlType::Q8_0,
            // In the 70 B models eight query heads share each of them.
            GgmlType::Q3_K | GgmlType::Q4_K if is_70b => GgmlType::Q5_K,
            ty => ty,
        }
    }

    fn attention_output(&self) -> GgmlType {
        match (self.file_type, self.model.n_experts) {
            (Q2_K | Q3_K_S | Q3_K_M | Q4_K_S | Q4_K_M | IQ4_NL | IQ4_XS, 8) => GgmlType::Q5_K,
            (other, 8) => other.base_type(),
            (Q2_K, _) => GgmlType::Q3_K,
            (Q3_K_M, _) => GgmlType::Q4_K,
            (Q3_K_L, _) => GgmlType::Q5_K,
            (other, _) => other.base_type(),
        }
    }

    fn down(&mut self, name: &str) -> GgmlType {
        let n_layers = self.model.n_layers;
        // A layer of a mixture of experts may have several of these tensors.
        let layer = match layer_of(name) {
            Some(layer) if self.model.n_experts > 1 => layer,
            _ => self.downs_seen,
        };
        self.downs_seen += 1;
        let is_early = layer < n_layers / 8;
        match self.file_type {
            Q2_K => GgmlType::Q3_K,
            Q2_K_S if is_early => GgmlType::Q4_K,
            Q3_K_M if layer < n_layers / 16 => GgmlType::Q5_K,
            Q3_K_M => GgmlType::Q4_K,
            Q3_K_L => GgmlType::Q5_K,
            Q4_K_M | Q5_K_M if deserves_more_bits(layer, n_layers) => GgmlType::Q6_K,
            IQ4_NL | IQ4_XS if is_early && !self.options.has_importance => GgmlType::Q5_K,
            Q4_K_S if is_early => GgmlType::Q5_K,
            Q4_0 if is_early && self.options.has_importance => GgmlType::Q4_1,
            Q5_0 if is_early && self.options.has_importance => GgmlType::Q5_1,
            other => other.base_type(),
        }
    }
}

/// The first and the last eighth of the layers, and every third between.
fn deserves_more_bits(layer: usize, n_layers: usize) -> bool {
    let eighth = n_layers / 8;
    layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2
}

/// `ty`, or where its blocks do not divide the row a type with smaller blocks that loses less, or F16.
fn that_divides(ty: GgmlType, row_len: u64) -> GgmlType {
    let divides = |ty: GgmlType| row_len.is_multiple_of(ty.block_len() as u64);
    if divides(ty) {
        return ty;
    }
    let smaller = match ty {
        GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        other => other,
    };
    if divides(smaller) { smaller } else { GgmlType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(file_type: FileType, model: &ModelFacts<'_>, tensors: &[(&str, &[u64])]) -> Vec<GgmlType> {
        let tensors: Vec<_> =
            tensors.iter().map(|&(name, dims)| TensorFacts { name, ty: GgmlType::F16, dims }).collect();
        tensor_types(file_type, model, &tensors, &Options::default())
    }

    const DENSE: ModelFacts<'_> =
        ModelFacts { architecture: "llama", n_layers: 8, n_heads: 32, n_kv_heads: 32, n_experts: 0 };

    #[test]
    fn each_file_type_stands_in_the_table_at_its_own_place() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, place, "{}", row.2);
            assert_eq!(FileType::from_name(&row.2.to_lowercase()), Some(row.0));
        }
        assert_eq!(FileType::from_name("q4_k"), Some(Q4_K_M));
        assert_eq!(FileType::from_name("Q9_K"), None);
    }

    #[test]
    fn every_base_type_can_be_written() {
        assert!(FileType::all().all(|ty| crate::is_quantizable(ty.base_type())));
    }

    #[test]
    fn small_and_sensitive_tensors_keep_their_type() {
        let kept: [(&str, &[u64]); 6] = [
            ("blk.0.attn_norm.weight", &[256]),
            ("blk.0.attn_q_norm.weight", &[128, 8]),
            ("blk.0.ffn_gate_inp.weight", &[256, 8]),
            ("blk.0.attn_q.bias", &[256]),
            ("position_embd.weight", &[256, 64]),
            ("blk.0.ssm_conv1d.weight", &[4, 256]),
        ];
        assert_eq!(types(Q4_K_M, &DENSE, &kept), [GgmlType::F16; 6]);
    }

    #[test]
    fn layers_are_counted_in_their_order_not_in_that_of_the_file() {
        let names: Vec<String> = [7, 6, 5, 4, 3, 2, 1, 0].map(|i| format!("blk.{i}.ffn_down.weight")).into();
        let tensors: Vec<(&str, &[u64])> =
            names.iter().map(|name| (name.as_str(), &[256, 256][..])).collect();
        let more: Vec<bool> =
            types(Q4_K_M, &DENSE, &tensors).iter().map(|&ty| ty == GgmlType::Q6_K).collect();
        // Layers 0 and 7, the outer eighths, and 3 and 6, every third between.
        assert_eq!(more, [true, true, false, false, true, false, false, true]);
    }

    #[test]
    fn rows_that_blocks_do_not_divide_get_smaller_blocks_or_f16() {
        let tensors: [(&str, &[u64]); 3] = [
            ("blk.0.attn_q.weight", &[160, 64]),
            ("blk.1.attn_q.weight", &[100, 64]),
            ("output.weight", &[160, 9]),
        ];
        assert_eq!(types(Q4_K_M, &DENSE, &tensors), [GgmlType::Q5_0, GgmlType::F16, GgmlType::Q8_0]);
        assert_eq!(types(IQ4_XS, &DENSE, &tensors)[0], GgmlType::IQ4_NL);
        assert_eq!(types(Q4_0, &DENSE, &tensors)[2], GgmlType::Q8_0);
    }

    #[test]
    fn a_tied_embedding_is_quantized_like_an_output_matrix() {
        let embedding: (&str, &[u64]) = ("token_embd.weight", &[256, 1000]);
        assert_eq!(types(Q4_0, &DENSE, &[embedding]), [GgmlType::Q6_K]);
        let untied = types(Q4_0, &DENSE, &[embedding, ("output.weight", &[256, 1000])]);
        assert_eq!(untied, [GgmlType::Q4_0, GgmlType::Q6_K]);
    }

    #[test]
    fn stacks_of_experts_become_mxfp4_and_the_rest_q8_0() {
        let model = ModelFacts { n_experts: 4, ..DENSE };
        let tensors: [(&str, &[u64]); 2] =
            [("blk.0.ffn_up_exps.weight", &[64, 96, 4]), ("blk.0.attn_q.weight", &[64, 64])];
        assert_eq!(types(MXFP4_MOE, &model, &tensors), [GgmlType::MXFP4, GgmlType::Q8_0]);
    }

    #[test]
    fn f32_converts_everything_but_integers() {
        let tensor = |name, ty| TensorFacts { name, ty, dims: &[256] };
        let tensors = [
            tensor("any", GgmlType::Q4_K),
            tensor("a_norm.weight", GgmlType::F16),
            tensor("ids", GgmlType::I32),
        ];
        let types = tensor_types(F32, &DENSE, &tensors, &Options::default());
        assert_eq!(types, [GgmlType::F32, GgmlType::F32, GgmlType::I32]);
    }

    #[test]
    fn what_the_user_asks_for_comes_before_the_mix() {
        let tensor = |name, dims| TensorFacts { name, ty: GgmlType::F16, dims };
        let tensors = [
            tensor("token_embd.weight", &[256, 1000]),
            tensor("output.weight", &[256, 1000]),
            tensor("blk.0.attn_v.weight", &[256, 256]),
        ];
        let options = Options {
            pure: true,
            output_tensor_type: Some(GgmlType::F16),
            token_embedding_type: Some(GgmlType::Q2_K),
            ..Options::default()
        };
        let types = tensor_types(Q4_K_M, &DENSE, &tensors, &options);
        assert_eq!(types, [GgmlType::Q2_K, GgmlType::F16, GgmlType::Q4_K]);
    }
}
