"""What hard attention is compared with: models of the whole image, with soft attention or none, trained by supervision.

Each is a plain `nn.Module` from images [B, C, H, W] in [0, 1] to `Looked`; each file is one paper. The table names them as
"module:Class", so that listing them imports no torch.
"""

BASELINES = {
    "cnn": "hardattn.baselines.convnet:ConvNet",
    "cnn-small": "hardattn.baselines.convnet:SmallConvNet",
    "stn": "hardattn.baselines.stn:SpatialTransformer",
    "draw-reader": "hardattn.baselines.draw_reader:DrawReader",
    "se": "hardattn.baselines.squeeze_excite:SqueezeExcite",
    "no-squeeze": "hardattn.baselines.squeeze_excite:NoSqueeze",
    "residual-attention": "hardattn.baselines.residual_attention:ResidualAttention",
}
SUMMARIES = {
    "cnn": "a convolutional network of the whole image",
    "cnn-small": "the same of the image made as small as the pixels that the task's glimpses hold",
    "stn": "a spatial transformer before the same network (Jaderberg et al. 2015)",
    "draw-reader": "a recurrent network that reads through grids of Gaussian filters (Gregor et al. 2015)",
    "se": "the network with squeeze-and-excitation of its feature maps (Hu et al. 2017)",
    "no-squeeze": "its control: the same gates from each place alone",
    "residual-attention": "residual units under bottom-up, top-down masks (Wang et al. 2017)",
}
