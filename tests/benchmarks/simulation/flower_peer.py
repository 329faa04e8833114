"""Flower's own simulation on two Ray actors: `flower_peer.py MODEL COHORTS FOLDER DEVICES`."""

import sys
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from torch.nn import functional
from work import BATCH, EXAMPLES, LEARNING_RATE, Cohorts, finish, first

MODEL, COHORTS, FOLDER, DEVICES = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
client, server = ClientApp(), ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    net = first(MODEL)
    net.load_state_dict(message.content["weights"].to_torch_state_dict())
    work = message.content["work"]
    inputs, labels = Cohorts.read(COHORTS).data(MODEL, int(work["round"]), int(work["place"]))
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    for begin in range(0, EXAMPLES, BATCH):
        optimizer.zero_grad()
        taken = slice(begin, begin + BATCH)
        functional.cross_entropy(net(inputs[taken]), labels[taken]).backward()
        optimizer.step()
    return Message(RecordDict({"weights": ArrayRecord(net.state_dict())}), reply_to=message)


@server.main()
def serve(grid: Grid, context: Context) -> None:
    cohorts = Cohorts.read(COHORTS)
    weights = first(MODEL).state_dict()
    while len(nodes := list(grid.get_node_ids())) < DEVICES:
        time.sleep(0.2)
    ends_s = []
    for number, devices in enumerate(cohorts.devices):
        model = ArrayRecord(weights)
        messages = []
        for place, device in enumerate(devices):
            work = ConfigRecord({"round": number, "place": place})
            content = RecordDict({"weights": model, "work": work})
            node = nodes[int(device) % DEVICES]
            messages.append(Message(content, dst_node_id=node, message_type="train"))
        replies = [each.content["weights"].to_torch_state_dict() for each in grid.send_and_receive(messages)]
        assert len(replies) == len(devices)
        weights = {n: torch.stack([r[n].double() for r in replies]).mean(0).float() for n in weights}
        ends_s.append(time.perf_counter())
    finish("flower", MODEL, ends_s, weights, FOLDER)


if __name__ == "__main__":
    run_simulation(
        server,
        client,
        DEVICES,
        backend_config={"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
