"""Constants of colour in a stained slide: how bright it looks, and what the dyes hold back."""

from __future__ import annotations

LUMA = (0.299, 0.587, 0.114)  # weights of R, G, B in brightness: ITU-R BT.601

# Optical density of each dye in R, G, B, as vectors of length 1 to two digits: Ruifrok and Johnston 2001,
# "Quantification of histochemical staining by color deconvolution", Anal. Quant. Cytol. Histol. 23:291.
HAEMATOXYLIN = (0.65, 0.70, 0.29)
EOSIN = (0.07, 0.99, 0.11)
DIAMINOBENZIDINE = (0.27, 0.57, 0.78)  # a third direction, for what is neither of the two
