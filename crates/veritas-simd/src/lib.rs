//! Instruction-set levels: detection, proof tokens and a cap.
