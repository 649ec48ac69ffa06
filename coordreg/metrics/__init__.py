"""How good is a prediction? PCK and PCKh (pck), COCO's OKS (oks), the errors of 3-D poses (mpjpe). See chapter 1."""
