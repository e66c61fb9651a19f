"""Label Studio's configurations: what is read of them, and what is refused."""

from __future__ import annotations

import pytest

from errors import ValidationFailed
from formats.label_studio_config import Label, parse_label_config
from formats.label_studio_names import training_names

FULL = """<View>
  <Header value="Mark &amp; go"/>
  <Image name="photo" value="$data.image"/>
  <RectangleLabels name="box" toName="photo" model_score_threshold="0.4" model="signs">
    <Label value="Stop" background="red"/>
    <Label value="Vehicle" alias="v" predicted_values="car, truck"/>
  </RectangleLabels>
  <KeyPointLabels name="point" toName="photo"><Label value="Tip" model_index="2"/></KeyPointLabels>
  <View><Choices name="day" toName="photo"><Choice value="night"/></Choices></View>
  <Choices name="each" toName="photo" perRegion="true"><Choice value="blurred"/></Choices>
  <BrushLabels name="brush" toName="photo"><Label value="x"/></BrushLabels>
  <Text name="text" value="$text"/><Choices name="mood" toName="text"><Choice value="y"/></Choices>
</View>"""


def test_controls_are_those_of_the_picture_that_models_can_fill() -> None:
    config = parse_label_config(FULL)
    assert (config.image_name, config.image_key) == ("photo", "data.image")
    kinds = [(control.kind, control.name) for control in config.controls]
    assert kinds == [("rectanglelabels", "box"), ("keypointlabels", "point"), ("choices", "day")]
    assert config.others == ('<BrushLabels name="brush">',)
    box = config.controls[0]
    assert (box.confidence, box.model) == (0.4, "signs")
    assert box.labels == (Label("Stop", ("Stop",)), Label("v", ("car", "truck")))
    assert config.controls[1].labels[0].point == 2
    values = [[label.value for label in control.labels] for control in config.controls]
    assert values == [["Stop", "v"], ["Tip"], ["night"]]


@pytest.mark.parametrize(
    ("name", "label"),
    [("stop", "Stop"), (" STOP ", "Stop"), ("Car", "v"), ("truck", "v"), ("Vehicle", None)],
)
def test_a_class_finds_its_label_in_any_case(name: str, label: str | None) -> None:
    found = parse_label_config(FULL).controls[0].labels_of([name])
    assert found == ({name: label} if label else {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid XML"),
        ("<View><Image", "not valid XML"),
        ("<View/>", "no <Image>"),
        ("\ud800", "not valid XML"),
        ('<!DOCTYPE v [<!ENTITY a "b">]><View><Image value="&a;"/></View>', "DOCTYPE"),
        ('<!DOCTYPE v SYSTEM "file:///etc/passwd"><View/>', "DOCTYPE"),
        ("<View>" + " " * (1 << 20) + "</View>", "longer"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationFailed, match=message):
        parse_label_config(text)


def test_labels_become_the_classes_of_the_model_that_learns_on() -> None:
    config = parse_label_config(
        """<View><Image name="i" value="$image"/><RectangleLabels name="r" toName="i">
        <Label value="Auto" predicted_values="car"/><Label value="TRAM"/><Label value="stop"/>
        <Label value="Vehicle" predicted_values="car,bus"/></RectangleLabels>
        <KeyPointLabels name="k" toName="i"><Label value="nose"/>
        <Label value="Ear" model_index="1"/></KeyPointLabels></View>"""
    )
    names = training_names(config, ("stop", "car", "bus"), ("nose", "ear"))
    assert names.classes == {"stop": "stop", "Auto": "car", "TRAM": "TRAM", "Vehicle": "Vehicle"}
    assert list(names.classes) == ["stop", "Auto", "TRAM", "Vehicle"]  # the model's order first
    assert names.points == {"nose": "nose", "Ear": "ear"}


def test_an_index_of_5_000_digits_is_none() -> None:
    label = f"<Label value='dog' model_index='{'9' * 5000}'/>"
    config = f"<View><Image name='i' value='$i'/><RectangleLabels name='l' toName='i'>{label}"
    (control,) = parse_label_config(f"{config}</RectangleLabels></View>").controls
    assert control.labels[0].point is None
