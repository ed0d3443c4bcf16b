"""Reports on runs: the answer in sentences, with intervals and limitations. Reads run directories only; loads no torch.

load      reads run and sweep directories into tables
analysis  computes findings; the sentences of the answer are made in `analysis/conclusions`, the limitations in
          `analysis/limitations`
render    writes findings as HTML, Markdown, terminal text and figures
"""
