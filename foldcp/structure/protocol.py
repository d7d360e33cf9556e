"""The model, the data that it was made from, and the program that made it."""

from __future__ import annotations

from importlib.metadata import version

from foldcp.structure.entities import description
from foldcp.structure.molecules import Molecules
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.references import has_reference
from foldcp.structure.tables import INAPPLICABLE, UNKNOWN, Tables, or_unknown, row

NETWORK = "Boltz-2"
# Groups of data: all molecules, and the model.
INPUT, OUTPUT = 1, 2


def head_tables(structure: PredictedStructure) -> Tables:
    """The entry, its title and the dictionary that it follows."""
    return {
        "entry": row(id=structure.name),
        "audit_conform": row(
            dict_name="mmcif_ma.dic",
            dict_version="1.4.9",
            dict_location="https://raw.githubusercontent.com/ihmwg/ModelCIF/master/dist/"
            "mmcif_ma.dic",
        ),
        "struct": row(
            entry_id=structure.name,
            title=structure.title or structure.name,
            pdbx_model_details=or_unknown(structure.details),
            pdbx_structure_determination_methodology="computational",
        ),
    }


def protocol_tables(structure: PredictedStructure, molecules: Molecules) -> Tables:
    """Software, data, the one step of the protocol, and the model."""
    entities = molecules.entities
    model_data = len(entities) + 1
    numbers = [entity.number for entity in entities]
    tables = _software(structure)
    tables |= {
        "ma_data": {
            "id": [*numbers, model_data],
            "name": [*(description(entity, molecules) for entity in entities), "model"],
            "content_type": [*("target" for _ in entities), "model coordinates"],
        },
        "ma_data_group": {
            "ordinal_id": [*numbers, model_data],
            "group_id": [*(INPUT for _ in entities), OUTPUT],
            "data_id": [*numbers, model_data],
        },
        "ma_target_entity": {
            "entity_id": numbers,
            "data_id": numbers,
            "origin": [
                "reference database" if has_reference(entity, molecules) else "designed"
                for entity in entities
            ],
        },
        "ma_target_entity_instance": {
            "asym_id": [instance.label for instance in molecules.instances],
            "entity_id": [instance.entity + 1 for instance in molecules.instances],
            "details": [UNKNOWN for _ in molecules.instances],
        },
        "ma_protocol_step": row(
            ordinal_id=1,
            protocol_id=1,
            step_id=1,
            method_type="modeling",
            step_name="structure prediction",
            details=or_unknown(structure.details),
            software_group_id=1,
            input_data_group_id=INPUT,
            output_data_group_id=OUTPUT,
        ),
        "ma_model_list": row(
            ordinal_id=1,
            model_id=1,
            model_name="model",
            data_id=model_data,
            model_type="Ab initio model",
        ),
        "ma_model_group": row(id=1, name="All models", details=UNKNOWN),
        "ma_model_group_link": row(group_id=1, model_id=1),
    }
    return tables


def _software(structure: PredictedStructure) -> Tables:
    """foldcp and the network; the parameters of the run, where they are known."""
    parameters = structure.parameters
    tables: Tables = {
        "software": {
            "pdbx_ordinal": [1, 2],
            "name": ["foldcp", NETWORK],
            "classification": ["model building", "model building"],
            "description": [
                "prediction of complexes with a co-folding network",
                "network and weights",
            ],
            "version": [version("foldcp"), or_unknown(structure.weights)],
            "type": ["program", "other"],
            "location": [INAPPLICABLE, INAPPLICABLE],
        },
    }
    if parameters:  # before their group, as python-modelcif reads them in this order
        types = ["integer" if isinstance(value, int) else "string" for value in parameters.values()]
        tables["ma_software_parameter"] = {
            "parameter_id": list(range(1, len(parameters) + 1)),
            "group_id": [1 for _ in parameters],
            "data_type": types,
            "name": list(parameters),
            "value": [str(value) for value in parameters.values()],
        }
    tables["ma_software_group"] = {
        "ordinal_id": [1, 2],
        "group_id": [1, 1],
        "software_id": [1, 2],
        "parameter_group_id": [1 if parameters else INAPPLICABLE, INAPPLICABLE],
    }
    return tables
