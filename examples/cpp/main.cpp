// Screens photographs of the retina, without Python: one line of JSON for each, with the keys of `funduscope screen`.
//
//   screen [--threads N] [--point NAME] MODEL.onnx... [PICTURE...]
//
// Without pictures, their names are read from standard input, one a line. What each model makes of its outputs is told
// by engine/readers/. A screening aid for research, not a diagnosis and not a medical device.
#include <cstdlib>
#include <iostream>
#include <memory>
#include <set>

#include "model.hpp"
#include "reading.hpp"

namespace {

using nlohmann::ordered_json;

const std::vector<std::string> keys = {"name",
                                       "status",
                                       "code",
                                       "reason",
                                       "warnings",
                                       "sha256",
                                       "patient",
                                       "eye",
                                       "eye_source",
                                       "name_bytes",
                                       "width",
                                       "height",
                                       "glaucoma",
                                       "glaucoma_probability",
                                       "glaucoma_threshold",
                                       "vcdr",
                                       "disc_x",
                                       "disc_y",
                                       "disc_vertical_diameter_px",
                                       "disc_box_height_px",
                                       "disc_area_px",
                                       "cup_x",
                                       "cup_y",
                                       "cup_vertical_diameter_px",
                                       "cup_box_height_px",
                                       "cup_area_px",
                                       "fovea_x",
                                       "fovea_y",
                                       "glaucoma_network",
                                       "glaucoma_vcdr",
                                       "vcdr_first",
                                       "second_look",
                                       "referable_dr",
                                       "referable_dr_probability",
                                       "referable_dr_threshold",
                                       "any_dr",
                                       "any_dr_probability",
                                       "any_dr_threshold",
                                       "glaucoma_second",
                                       "glaucoma_second_probability",
                                       "glaucoma_second_threshold",
                                       "operating_point",
                                       "not_a_fundus",
                                       "dark",
                                       "overexposed",
                                       "blurred",
                                       "image_quality",
                                       "model",
                                       "model_version",
                                       "model_sha256",
                                       "backend",
                                       "precision"};

const std::set<std::string> kept = {"sha256", "warnings", "not_a_fundus", "dark", "overexposed", "blurred",
                                    "image_quality"};

struct Screener {
    std::unique_ptr<Model> multitask, disc, classifier;  // disc goes with multitask, else any may be missing
    std::string point;

    std::vector<Model*> models() const {
        std::vector<Model*> found;
        for (const auto* own : {&multitask, &disc, &classifier})
            if (*own) found.push_back(own->get());
        return found;
    }

    ordered_json operator()(const std::string& path) const {
        ordered_json row;
        for (const std::string& key : keys) row[key] = nullptr;
        row["name"] = path;
        row["status"] = "ok";
        row["warnings"] = ordered_json::array();
        for (const char* key : {"model", "model_version", "model_sha256", "backend", "precision"})
            row[key] = ordered_json::array();
        for (const Model* own : models()) {
            row["model"].push_back(own->contract.at("name"));
            row["model_version"].push_back(own->contract.at("version"));
            row["model_sha256"].push_back(own->contract.at("sha256"));
            row["backend"].push_back("onnxruntime");
            row["precision"].push_back(own->contract.at("precision"));
        }
        const ordered_json empty = row;
        try {
            screen(path, row);
        } catch (const Refused& refused) {
            reject(row, empty, refused);
        } catch (const cv::Exception&) {
            reject(row, empty, Refused("DAMAGED", "the picture cannot be decoded"));
        }
        return row;
    }

private:
    void screen(const std::string& path, ordered_json& row) const {
        Bytes data = read_file(path);
        row["sha256"] = sha256(data);
        Photo photo(std::move(data));
        Prepared fine;  // for closer looks at the disc
        if (multitask) fine = finer(photo, {2 * multitask->geometry.size, multitask->geometry.fov_threshold});
        const std::vector<Prepared> squares = prepared(photo);
        row["width"] = photo.width;
        row["height"] = photo.height;
        expect_colours(squares[0].image);
        if (!expect_round(squares[0].image)) row["warnings"].push_back("NOT_ROUND");
        Look first, second, whole;  // of each model
        if (multitask) first = look_for_disc(*multitask, squares.front(), fine);
        const auto spot = disc ? spot_of(multitask->contract, first, fine) : std::nullopt;
        if (spot) second = look_closer(*disc, around(fine, *spot, disc->geometry), first);
        if (classifier) whole = {squares.back(), classifier->run(squares.back().image)};

        std::vector<std::string> coarse;
        if (classifier) coarse = grade(classifier->contract, whole, row);
        Decision glaucoma;
        try {
            if (multitask) glaucoma = read_multitask(multitask->contract, first, row);
            if (spot) glaucoma = read_disc(disc->contract, second, multitask->contract, first, glaucoma, row);
        } catch (const Ungradable& refused) {
            if (!classifier) throw;
            row["warnings"].push_back(refused.code);  // the classifier decides all the same
        }
        if (classifier) read_classifier(classifier->contract, point, whole, glaucoma, row);
        leave_open(coarse, row);
    }

    // Each model's input.
    std::vector<Prepared> prepared(Photo& photo) const {
        std::vector<Prepared> squares;
        try {
            for (const auto* own : {&multitask, &classifier})
                if (*own) squares.push_back(prepare(photo, (*own)->geometry));
        } catch (const Ungradable& refused) {
            if (squares.empty() || refused.code != "NO_FIELD_OF_VIEW") throw;
            throw too_dark();  // there is light enough for another model
        }
        return squares;
    }

    // What was found so far is taken back, but for what is known of any picture, and the scores of its quality.
    static void reject(ordered_json& row, const ordered_json& empty, const Refused& refused) {
        for (const auto& [key, before] : empty.items())
            if (!kept.count(key)) row[key] = before;
        row["status"] = dynamic_cast<const Ungradable*>(&refused) ? "ungradable" : "error";
        row["code"] = refused.code;
        row["reason"] = refused.what();
    }
};

bool is_model(const std::string& path) { return path.size() > 5 && path.substr(path.size() - 5) == ".onnx"; }

int run(const std::vector<std::string>& arguments) {
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "funduscope");
    Screener screener;
    std::vector<std::string> pictures, files;
    int threads = 0;
    for (size_t k = 0; k < arguments.size(); ++k) {
        const std::string& own = arguments[k];
        if (own == "--threads" && k + 1 < arguments.size())
            threads = std::stoi(arguments[++k]);
        else if (own == "--point" && k + 1 < arguments.size())
            screener.point = arguments[++k];
        else
            (is_model(own) ? files : pictures).push_back(own);
    }
    for (const std::string& path : files) {
        auto model = std::make_unique<Model>(env, path, threads);
        const std::string kind = model->contract.at("kind");
        if (kind != "multi-task" && kind != "disc" && kind != "classifier")
            throw std::runtime_error(path + ": a kind of model that is not read: " + kind);
        auto& place = kind == "classifier" ? screener.classifier : kind == "disc" ? screener.disc : screener.multitask;
        if (place) throw std::runtime_error(path + ": a second model of the kind " + kind);
        place = std::move(model);
    }
    if (files.empty()) throw std::runtime_error("screen [--threads N] [--point NAME] MODEL.onnx... [PICTURE...]");
    if (screener.disc && !screener.multitask)
        throw std::runtime_error("a disc model looks where a multi-task model has found a disc; name one beside it");
    if (screener.classifier && screener.point.empty()) screener.point = screener.classifier->contract.at("point");
    if (threads) cv::setNumThreads(threads);

    const auto print = [&](const std::string& path) {
        std::cout << screener(path).dump(-1, ' ', false, ordered_json::error_handler_t::replace) << std::endl;
    };
    for (const std::string& path : pictures) print(path);
    for (std::string path; pictures.empty() && std::getline(std::cin, path);) print(path);
    return 0;
}

}  // namespace

int main(int count, char** words) {
    // ONNX Runtime's releases send to their makers what is run, unless this is said first; on Windows it is _putenv_s
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    try {
        return run({words + 1, words + count});
    } catch (const std::exception& error) {
        std::cerr << error.what() << std::endl;
        return 3;
    }
}
