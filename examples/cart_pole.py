"""A pole learns to stand on a cart: physics, policy and training in one compiled function.

The policy is a network from the state (position, velocity, angle, angular velocity) to the scores of two forces. It learns
by the cross-entropy method (Rubinstein 1999): play many episodes with actions drawn by their probabilities, keep the best
ones, and train the network to act as in these. An episode ends when the pole has fallen over or the cart has left its
track, at the latest after 500 steps. The task is that of Barto, Sutton and Anderson (1983).

Run ``python examples/cart_pole.py``.
"""

import math
import time

import numpy as np
from numba import njit

import gdkernels as gd

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TRACK, FALLEN = 2.4, math.radians(12)
LONGEST = 500  # steps of an episode
EPISODES, BEST, BATCH = 100, 15, 64  # of a generation; of these the best; samples of a training step


@njit
def move(state, force):
    """One step of semi-implicit Euler; tells whether the pole still stands."""
    position, velocity, angle, turning = state
    push = force + POLE * HALF_LENGTH * turning**2 * math.sin(angle)
    inertia = HALF_LENGTH * (4 / 3 - POLE * math.cos(angle) ** 2 / (CART + POLE))
    pull = (GRAVITY * math.sin(angle) - math.cos(angle) * push / (CART + POLE)) / inertia
    velocity += SECONDS * (push - POLE * HALF_LENGTH * pull * math.cos(angle)) / (CART + POLE)
    turning += SECONDS * pull
    position += SECONDS * velocity
    angle += SECONDS * turning
    state[:] = position, velocity, angle, turning
    return abs(position) < TRACK and abs(angle) < FALLEN


@njit
def play(policy, states, actions, scores, greedy, rng):
    """One episode, which fills `states` and `actions`; the number of its steps."""
    state = rng.uniform(-0.05, 0.05, 4)
    for step in range(LONGEST):
        states[step] = state
        policy.predict(states[step], scores)
        right = 1 / (1 + math.exp(scores[0] - scores[1]))  # the softmax of two scores
        actions[step] = right > 0.5 if greedy else rng.random() < right
        if not move(state, FORCE if actions[step] == 1 else -FORCE):
            return step + 1
    return LONGEST


@njit
def learn(policy, training, generations, rng):
    """Train the policy; the mean number of steps of each generation's episodes."""
    states = np.empty((EPISODES, LONGEST, 4), np.float32)
    actions = np.empty((EPISODES, LONGEST), np.int64)
    lengths, scores = np.empty(EPISODES, np.int64), np.empty(2, np.float32)
    x, y = np.empty((BEST * LONGEST, 4), np.float32), np.empty(BEST * LONGEST, np.int64)
    means = np.empty(generations)
    for generation in range(generations):
        for episode in range(EPISODES):
            lengths[episode] = play(policy, states[episode], actions[episode], scores, False, rng)
        means[generation] = lengths.mean()
        count = 0
        for episode in np.argsort(-lengths)[:BEST]:
            steps = lengths[episode]
            x[count : count + steps] = states[episode, :steps]
            y[count : count + steps] = actions[episode, :steps]
            count += steps
        order = rng.permutation(count)
        x_now, y_now = x[order], y[order]
        for start in range(0, count, BATCH):
            training.step(x_now[start : start + BATCH], y_now[start : start + BATCH])
    return means


@njit
def judge(policy, episodes, rng):
    """The mean number of steps when the better score decides."""
    states, actions = np.empty((LONGEST, 4), np.float32), np.empty(LONGEST, np.int64)
    scores, total = np.empty(2, np.float32), 0
    for _ in range(episodes):
        total += play(policy, states, actions, scores, True, rng)
    return total / episodes


def main(generations: int = 40, seed: int = 1) -> tuple[float, float]:
    """Train and print; the mean steps of a hundred episodes before and after."""
    net = gd.mlp([4, 32, 32, 2], activation="tanh", seed=seed)
    trainer = gd.Trainer(net, "softmax_cross_entropy", gd.Adam(lr=5e-3))
    policy, training = net.jitted(), trainer.jitted()
    rng = np.random.default_rng(seed)
    before = judge(policy, 100, rng)
    learn(policy, training, 0, rng)  # compiles it
    start = time.perf_counter()
    means = learn(policy, training, generations, rng)
    seconds = time.perf_counter() - start
    after = judge(policy, 100, rng)
    for generation in range(0, generations, 5):
        print(f"generation {generation:3d}: {means[generation]:5.1f} steps")
    print(f"{trainer.steps} training steps and {int(means.sum() * EPISODES):,} moves in {seconds:.1f} s")
    print(f"a hundred episodes: {before:.1f} steps before, {after:.1f} of {LONGEST} after")
    return before, after


if __name__ == "__main__":
    main()
