#!/usr/bin/env python3
"""Writes pydantic.json: schemas as pydantic emits them, with documents that it has written (valid)
and texts that it refuses (invalid). Needs pydantic 2: tests/data/json_schemas/make_pydantic.py"""
import enum
import json
import pathlib
from datetime import date
from typing import Annotated, Dict, List, Literal, Optional, Tuple, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class Color(str, enum.Enum):
    RED = "red"
    GREEN = "green"


class Step(BaseModel):
    explanation: str
    output: str


class MathReasoning(BaseModel):
    steps: List[Step]
    final_answer: str


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=40, description="As in the passport")
    age: int = Field(ge=0, lt=150)
    email: Optional[str] = Field(default=None, pattern=r"^[a-z]+@[a-z]+\.[a-z]{2,3}$")
    favourite: Color = Color.RED
    born: Optional[date] = None


class TreeNode(BaseModel):
    value: int
    children: List["TreeNode"] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool


class Owner(BaseModel):
    pet: Annotated[Union[Cat, Dog], Field(discriminator="kind")]
    others: List[Union[Cat, Dog]] = Field(default_factory=list, max_length=2)


class Reading(BaseModel):
    model_config = ConfigDict(extra="allow")
    scores: Dict[str, float]
    position: Tuple[float, float]
    label: Union[int, str, None]
    level: Literal[1, 2, "high"]


class Probability(BaseModel):
    confidence: float = Field(ge=0, le=1)
    margin: float = Field(gt=-2.5, lt=0.25)


CASES = [
    (MathReasoning, [{"steps": [{"explanation": "2 < 3", "output": "\"so\""}], "final_answer": "é"},
                     {"steps": [], "final_answer": ""}],
     ['{"steps":[{"explanation":"a"}],"final_answer":"b"}', '{"steps":[]}', '[]',
      '{"steps":"none","final_answer":""}']),
    (Person, [{"name": "Ann", "age": 0}, {"name": "Bo", "age": 149, "email": "b@c.de",
              "favourite": "green", "born": "2001-02-03"}],
     ['{"name":"","age":1}', '{"name":"A","age":150}', '{"name":"A","age":-1}',
      '{"name":"A","age":1,"email":"no"}', '{"name":"A","age":1,"favourite":"blue"}',
      '{"name":"A","age":1,"more":1}', '{"name":"%s","age":1}' % ("x" * 41)]),
    (TreeNode, [{"value": 1, "children": [{"value": 2, "children": [{"value": 3}]}]}],
     ['{"value":1,"children":[{"children":[]}]}', '{"value":1,"children":[2]}', '{"value":"x"}']),
    (Owner, [{"pet": {"kind": "cat", "lives": 9}, "others": [{"kind": "dog", "barks": True}]},
             {"pet": {"kind": "dog", "barks": False}}],
     ['{"pet":{"kind":"cat","barks":true}}', '{"pet":{"kind":"cow"}}',
      '{"pet":{"kind":"dog","barks":true},"others":[1]}', '{"others":[]}']),
    (Reading, [{"scores": {"a": 1.5, "b": -2.0}, "position": [1.0, 2e-5], "label": None, "level": 2},
               {"scores": {}, "position": [0.0, 0.0], "label": "x", "level": "high", "note": [1, {}]}],
     ['{"scores":{"a":"x"},"position":[1,2],"label":null,"level":1}',
      '{"scores":{},"position":[1],"label":null,"level":1}',
      '{"scores":{},"position":[1,2,3],"label":null,"level":1}',
      '{"scores":{},"position":[1,2],"label":[],"level":1}',
      '{"scores":{},"position":[1,2],"label":1,"level":3}']),
    (Probability, [{"confidence": 0.75, "margin": -2.49}, {"confidence": 1.0, "margin": 0.0}],
     ['{"confidence":1.01,"margin":0}', '{"confidence":-0.1,"margin":0}',
      '{"confidence":0.5,"margin":0.25}', '{"confidence":0.5,"margin":-2.5}']),
]


def main():
    cases = []
    for model, valid, invalid in CASES:
        adapter = TypeAdapter(model)
        texts = []
        for value in valid:
            made = model.model_validate(value)
            texts.append(made.model_dump_json())
            texts.append(made.model_dump_json(indent=2))
            texts.append(json.dumps(made.model_dump(mode="json", exclude_unset=True), ensure_ascii=False))
        for text in invalid:
            try:
                model.model_validate_json(text, strict=True)
            except ValidationError:
                continue
            raise SystemExit(f"{model.__name__} takes {text}")
        cases.append({"name": model.__name__, "schema": adapter.json_schema(), "valid": texts,
                      "invalid": invalid})
    place = pathlib.Path(__file__).with_name("pydantic.json")
    place.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


main()
