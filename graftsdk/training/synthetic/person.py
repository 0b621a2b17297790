"""One person on a picture."""

from __future__ import annotations

from graftsdk.training.synthetic.camera import Camera
from graftsdk.training.synthetic.canvas import Canvas
from graftsdk.training.synthetic.carried import add_things
from graftsdk.training.synthetic.clothes import add_arms, add_legs, add_trunk
from graftsdk.training.synthetic.figure import Figure
from graftsdk.training.synthetic.head import add_head
from graftsdk.training.synthetic.persona import Persona
from graftsdk.training.synthetic.puppet import Puppet

__all__ = ["draw_person"]


def draw_person(canvas: Canvas, camera: Camera, position: tuple[float, float], person: Persona) -> None:
    """Paint a person, with what is carried, on the canvas and its mask.

    Args:
        canvas: of the camera's size.
        camera: that sees it.
        position: (x, z) of the feet, metres.
        person: who it is.
    """
    figure = Figure(camera, position, person.turn, person.build.height)
    body = Puppet(person.build, person.pose, figure.towards)
    add_legs(figure, body, person)
    add_trunk(figure, body, person)
    add_arms(figure, body, person)
    add_head(figure, body, person)
    add_things(figure, body, person)
    figure.paint(canvas)
