"""Training a module to do what the original model does: distillation, and fine-tuning after pruning."""
