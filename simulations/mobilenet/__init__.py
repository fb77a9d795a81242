"""A model of your own: what a person writes to have a torchvision MobileNetV3 optimized."""
