"""The chat: a conversation about sessions, in which every figure comes from a tool, with a model or with none."""
