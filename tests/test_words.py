"""The words of the course: the field's own terms, and none that a reader has to guess."""

import re

import pytest
from notebooks import LESSONS, ROOT, read

MAP = (ROOT / "lessons" / "README.md").read_text("utf-8")
TEXTS = {
    path.stem[:2]: "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    for path in LESSONS
}
CODE = {
    path.stem[:2]: "\n".join(c.source for c in read(path).cells if c.cell_type == "code")
    for path in LESSONS
}

# What a reader of papers and of other libraries will look for.
STANDARD = """
    ablation; activation function; adam; automatic differentiation; backpropagation;
    backward pass; batch; batch normalisation; broadcasting; chain rule; checkpoint;
    computational graph; confusion matrix; convolution; cross-entropy; data augmentation;
    data leakage; dropout; epoch; exponential moving average; fine-tuning; finite
    differences; forward pass; gelu; generalise; gradient checking; gradient clipping;
    gradient descent; hyperparameter; inductive bias; initialisation; intersection over
    union; jacobian; kernel; label smoothing; layer normalisation; learning rate; learning
    rate schedule; linear layer; logits; loss function; mixture of experts; momentum;
    multilayer perceptron; normalisation; overfitting; padding; parameter; patch embedding;
    receptive field; regularisation; semantic segmentation; skip connection; softmax;
    stochastic depth; stochastic gradient descent; test set; token; topological order;
    transfer learning; underfitting; validation set; warm-up; weight decay; weight sharing;
    with respect to
"""

MANNERED = r"""
    \bwhoever\b; \bnobody\b; \bsomebody\b; \bbe it\b; \bhangs on\b; \bwants a\b; \bwants? to
    be told\b; not much of a; a poor thing; by heart\b; \bthe luck\b; \bluckiest\b; several
    throws; word for it; has its say; have a say; no secrets; two lives; knife's edge; goes
    by their; in earnest; in truth\b; \bnews\b; on board; \baboard\b; \blonely\b; \bheap\b;
    \bwhisper; \bdead heat\b; what it buys; what does it buy; who hears whom; who sees whom;
    \btold apart by\b; the way back\b; blow(?:s|n)? up\b; asks by name; \bhung (?:up|on)\b;
    an honest guess; \bhonest(?:ly)?\b; its weights are idle; \bhave to go home\b; \bhands?
    (?:on|back|out)\b; \bclever(?:er)?\b; \bto be fair\b; a tired person; \bin company\b;
    \bmind the\b; \bwishes?\b; \bmends?\b; \bmeets? (?:a|again|another)\b; (?-i:\bis
    none\b); cheating does not; was happy with; \bshall\b
"""


def listed(text):
    return [" ".join(phrase.split()) for phrase in text.split(";")]


def glossary():
    """Each term of the glossary, in lower case, and the lesson that introduces it."""
    section = MAP.split("## Glossary\n")[1].split("\n## ")[0]
    found = {}
    for left, lesson in re.findall(r"^\| (.+?) \| .* \((\d\d)\) \|$", section, re.MULTILINE):
        for term in left.split(", "):
            found[re.sub(r"\s*`.*?`", "", term).strip().lower()] = lesson
    return found


def introduced(lesson):
    """What a lesson shows in bold, in lower case, its words one space apart."""
    text = re.sub(r"`[^`]*`", "", TEXTS[lesson])
    return [" ".join(words.lower().split()) for words in re.findall(r"\*\*(.+?)\*\*", text, re.S)]


@pytest.mark.parametrize("term", listed(STANDARD))
def test_a_standard_term_is_in_the_glossary(term):
    assert term in glossary()


@pytest.mark.parametrize(("term", "lesson"), glossary().items())
def test_a_term_of_the_glossary_is_introduced_in_bold_where_it_says(term, lesson):
    stem = re.sub(r"(ies|s|e|ing|ting)$", "", term) if len(term) > 6 else term
    assert any(stem in words for words in introduced(lesson)), (term, lesson)


@pytest.mark.parametrize("phrase", listed(MANNERED))
def test_no_mannered_phrase(phrase):
    pattern = re.compile(phrase.replace(" ", r"\s+"), re.IGNORECASE)
    for texts in (TEXTS, CODE, {"README": MAP}):
        for name, text in texts.items():
            found = pattern.search(text)
            assert not found, f"{name}: {text[max(0, found.start() - 60) : found.end() + 40]!r}"


def test_the_lists_are_long_enough_to_mean_something():
    assert len(listed(STANDARD)) >= 60
    assert len(listed(MANNERED)) >= 40
    assert len(glossary()) >= 90
